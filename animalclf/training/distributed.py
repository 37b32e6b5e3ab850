"""The ranks of a training, and collectives over them. A single process is a world of size one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from animalclf.errors import UserError
from animalclf.utils.malloc import keep_freed_memory

T = TypeVar("T")


@dataclass(frozen=True)
class RankContext:
    """The rank of this process, the world size, and the device that it computes on."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def all_reduce(tensor: torch.Tensor) -> None:
    """Sum over the ranks, in place; nothing in a single process."""
    if dist.is_initialized():
        dist.all_reduce(tensor)


def all_gather(value: Any) -> list[Any]:
    """The values of all ranks (anything that pickles), in rank order, on every rank."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def on_all_ranks(action: Callable[[], T]) -> T:
    """`action()` on every rank. A UserError on one rank is raised on all, so that none waits for a failed one."""
    value, message = None, ""
    try:
        value = action()
    except UserError as error:
        message = str(error)
    messages = [text for text in all_gather(message) if text]
    if messages:
        raise UserError(messages[0])
    return value  # type: ignore[return-value]


def data_parallel(network: nn.Module, ranks: RankContext, compression: str = "none") -> nn.Module:
    """`network`, whose backward pass averages the gradients over the ranks: as they are, or (compression "bf16") as
    bfloat16 numbers of half the size. The network itself in a single process."""
    if ranks.world_size == 1:
        return network
    device_ids = [ranks.device] if ranks.device.type == "cuda" else None
    parallel = nn.parallel.DistributedDataParallel(network, device_ids=device_ids, gradient_as_bucket_view=True)
    if compression == "bf16":
        # Its package imports five others, and few trainings need it.
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

        parallel.register_comm_hook(None, bf16_compress_hook)
    return parallel


@torch.no_grad()
def average_statistics(model: nn.Module) -> None:
    """Average the BatchNorm statistics over the ranks, so that every rank validates the same model."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= dist.get_world_size()


def set_up_cpu(threads: int, local_world_size: int) -> None:
    """Set the CPU threads of this rank: `threads`, or (0) the node's physical cores divided by its ranks (Ray sets
    OMP_NUM_THREADS=1); and let the process reuse the memory that it frees."""
    cores = min(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, _physical_cores()
    )
    torch.set_num_threads(threads or max(1, cores // local_world_size))
    keep_freed_memory()


@contextmanager
def caller_state_restored(device: torch.device) -> Iterator[None]:
    """After the block, PyTorch's random numbers and its number of CPU threads are the caller's again, whatever a
    training on `device` in this process has set."""
    threads = torch.get_num_threads()
    gpus = range(torch.cuda.device_count()) if device.type == "cuda" or torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=gpus):
            yield
    finally:
        torch.set_num_threads(threads)


def _physical_cores() -> int:
    return int(torch.cpu.get_capabilities().get("num_physical_cores") or os.cpu_count() or 1)
