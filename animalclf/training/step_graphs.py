"""Optimizer steps as CUDA graphs: a step's kernels are recorded once for each batch shape and then started by one call.

A step starts hundreds of kernels. For ResNet-50 that takes the CPU as long as the GPU needs to run them. Plain PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

EAGER_STEPS = 3  # of each batch shape before it is recorded: cuDNN chooses its algorithms, and Adam makes its state
Step = Callable[[torch.Tensor, torch.Tensor], None]


class StepGraphs:
    """Runs the steps of one training on one GPU. All that a step changes (weights, optimizer state, running sums) must stay where it is in memory
    for the whole training. `sums` float64 (2,) is such a place, for the loop's loss and number of correct predictions."""

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)
        self.rate = torch.zeros((), device=device)  # a recorded step reads its learning rate from here
        for group in optimizer.param_groups:
            group["lr"], group["capturable"] = self.rate, True
        self.pool = torch.cuda.graph_pool_handle()
        self.eager: dict[tuple[torch.Size, torch.dtype], int] = {}
        self.recorded: dict[
            tuple[torch.Size, torch.dtype], tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]
        ] = {}

    def run(self, step: Step, image: torch.Tensor, label: torch.Tensor) -> None:
        """`step(image, label)`, recorded or replayed; the same function for all calls."""
        shape = image.shape, image.dtype
        if shape not in self.recorded and self.eager.get(shape, 0) < EAGER_STEPS:
            self.eager[shape] = self.eager.get(shape, 0) + 1
            _beside(step, image, label)
            return
        if shape not in self.recorded:
            self.recorded[shape] = self._record(step, image, label)
        graph, own_image, own_label = self.recorded[shape]
        own_image.copy_(image)
        own_label.copy_(label)
        graph.replay()

    def _record(
        self, step: Step, image: torch.Tensor, label: torch.Tensor
    ) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]:
        own_image, own_label = image.clone(), label.clone()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        # thread_local: the thread that writes checkpoints may use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            step(own_image, own_label)
        return graph, own_image, own_label


def usable(optimizer: torch.optim.Optimizer, device: torch.device, world: int) -> bool:
    """True for Adam and AdamW on one GPU. SGD takes its learning rate from the CPU; with several ranks the gradients' exchange stands between."""
    return device.type == "cuda" and world == 1 and isinstance(optimizer, torch.optim.Adam)


def _beside(step: Step, image: torch.Tensor, label: torch.Tensor) -> None:
    """A step on a stream of its own, as PyTorch asks for before recording: what it leaves behind belongs to no recording."""
    stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        step(image, label)
    current.wait_stream(stream)
