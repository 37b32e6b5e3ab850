"""The ranks of a training run: who this process is, and the few things that all of them do together. One process is a world of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from animalclf.errors import UserError
from animalclf.utils.malloc import keep_freed_memory

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where this process stands among the ranks, and what it computes on."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def all_reduce(tensor: torch.Tensor) -> None:
    """Sum over the ranks, in place; nothing in a single process."""
    if dist.is_initialized():
        dist.all_reduce(tensor)


def gather(mine: Any) -> list[Any]:
    """The values of all ranks (anything that pickles), in rank order, on every rank."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [mine]
    shares: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shares, mine)
    return shares


def together(action: Callable[[], T]) -> T:
    """`action()` on every rank; a UserError on one of them is raised on all, so that no rank waits for another that has given up."""
    value, problem = None, ""
    try:
        value = action()
    except UserError as error:
        problem = str(error)
    problems = [text for text in gather(problem) if text]
    if problems:
        raise UserError(problems[0])
    return value  # type: ignore[return-value]


@torch.no_grad()
def average_statistics(model: torch.nn.Module) -> None:
    """Make the BatchNorm statistics of all ranks their mean, so that every rank validates the same model."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= dist.get_world_size()


def set_up_cpu(wanted: int, workers_here: int) -> None:
    """Threads of this rank: `wanted`, or (0) the node's physical cores shared among its ranks (Ray sets OMP_NUM_THREADS=1). And memory that stays."""
    cores = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, _physical_cores())
    torch.set_num_threads(wanted or max(1, cores // workers_here))
    keep_freed_memory()


def _physical_cores() -> int:
    return int(torch.cpu.get_capabilities().get("num_physical_cores") or os.cpu_count() or 1)
