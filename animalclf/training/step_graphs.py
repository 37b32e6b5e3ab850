"""Optimizer steps as CUDA graphs: the kernels of a step are recorded once for each batch shape, then replayed.

A step of ResNet-50 has hundreds of kernels, and the CPU needs as long to start them as the GPU to run them. Plain
PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

EAGER_STEPS = 3  # of each batch shape before it is recorded: cuDNN chooses its algorithms, and Adam creates its state
Step = Callable[[torch.Tensor, torch.Tensor], None]


class RecordedStep(NamedTuple):
    """The graph of a step, and the tensors that it reads its batch from."""

    graph: torch.cuda.CUDAGraph
    image: torch.Tensor
    label: torch.Tensor


class StepGraphs:
    """Runs the steps of one training on one GPU.

    All that a step changes (weights, optimizer state, running sums) must stay at its address for the whole training.
    `sums` float64 (2,) does so for the loop's loss and number of correct predictions.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)
        for group in optimizer.param_groups:  # a recorded step reads its learning rates from these tensors
            group["lr"], group["capturable"] = torch.zeros((), device=device), True
        self.pool = torch.cuda.graph_pool_handle()
        self.eager_steps: dict[tuple[torch.Size, torch.dtype], int] = {}
        self.recorded: dict[tuple[torch.Size, torch.dtype], RecordedStep] = {}

    def run(self, step: Step, image: torch.Tensor, label: torch.Tensor) -> None:
        """`step(image, label)`, recorded or replayed; the same function in all calls."""
        shape = image.shape, image.dtype
        if shape not in self.recorded and self.eager_steps.get(shape, 0) < EAGER_STEPS:
            self.eager_steps[shape] = self.eager_steps.get(shape, 0) + 1
            _run_on_side_stream(step, image, label)
            return
        if shape not in self.recorded:
            self.recorded[shape] = self._record(step, image, label)
        recorded = self.recorded[shape]
        recorded.image.copy_(image)
        recorded.label.copy_(label)
        recorded.graph.replay()

    def _record(self, step: Step, image: torch.Tensor, label: torch.Tensor) -> RecordedStep:
        recorded = RecordedStep(torch.cuda.CUDAGraph(), image.clone(), label.clone())
        torch.cuda.synchronize()
        # thread_local: the thread that writes checkpoints may use the GPU at the same time.
        with torch.cuda.graph(recorded.graph, pool=self.pool, capture_error_mode="thread_local"):
            step(recorded.image, recorded.label)
        return recorded


def usable(optimizer: torch.optim.Optimizer, device: torch.device, world_size: int) -> bool:
    """Whether steps can be recorded: with Adam and AdamW on one GPU. SGD reads its learning rate on the CPU; several
    ranks exchange gradients within the step."""
    return device.type == "cuda" and world_size == 1 and isinstance(optimizer, torch.optim.Adam)


def _run_on_side_stream(step: Step, image: torch.Tensor, label: torch.Tensor) -> None:
    """A step on another stream, which PyTorch requires of the warm-up before a recording."""
    stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        step(image, label)
    current.wait_stream(stream)
