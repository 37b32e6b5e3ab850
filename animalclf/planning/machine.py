"""The machine or cluster that a training would run on, without starting a Ray: one that runs is joined and asked."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from animalclf.errors import UserError
from animalclf.raycompat.patches import OWN_RAY_VARIABLE
from animalclf.utils.ray_address import cluster_address
from animalclf.utils.text import count_text

STORE_FRACTION, MAX_STORE, MAX_STORE_MAC = 0.3, 200 * 10**9, 2 * 2**30  # Ray's defaults of an object store
Argument = TypeVar("Argument")
Answer = TypeVar("Answer")
GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Node:
    cpus: int
    gpus: int
    memory: int
    """Bytes; so is `store`, of the object store."""
    store: int


@dataclass(frozen=True)
class Machine:
    """The nodes with CPUs."""

    nodes: Sequence[Node]
    is_cluster: bool = False

    @property
    def cpus(self) -> int:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> int:
        return sum(node.gpus for node in self.nodes)

    @property
    def text(self) -> str:
        """`2 nodes, 16 CPUs, 2 GPUs`."""
        gpus = f", {count_text(self.gpus, 'GPU')}" if self.gpus else ""
        return f"{count_text(len(self.nodes), 'node')}, {count_text(self.cpus, 'CPU')}{gpus}"


def find_machine(workers: int) -> Machine:
    """The cluster of this process, or that RAY_ADDRESS or `ray start` names; else this machine, with the Ray that would
    be started for `workers` workers. Raises UserError if the cluster does not answer or has no CPUs."""
    ray = sys.modules.get("ray")
    if (ray and ray.is_initialized()) or cluster_address()[0]:
        return _cluster(workers)
    return Machine([Node(os.cpu_count() or 1, _local_gpus(), psutil.virtual_memory().total, _local_store())])


def _cluster(workers: int) -> Machine:
    import ray

    from animalclf.cluster import ensure_ray

    ensure_ray(workers)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not nodes:
        raise UserError("the cluster has no node with CPUs now; start its workers, and plan again")
    return Machine(
        [
            Node(
                int(node["CPU"]),
                int(node.get("GPU", 0)),
                int(node.get("memory", 0) + node.get("object_store_memory", 0)),
                int(node.get("object_store_memory", 0)),
            )
            for node in nodes
        ],
        is_cluster=True,
    )


def on_worker(machine: Machine, use_gpu: bool, function: Callable[[Argument], Answer], argument: Argument) -> Answer:
    """`function(argument)`, on a cluster in a task with the device of a training worker, else here."""
    if not machine.is_cluster or os.environ.get(OWN_RAY_VARIABLE):
        return function(argument)
    import ray

    task = ray.remote(num_cpus=1, num_gpus=1 if use_gpu else 0, max_retries=0)(function)
    result: Answer = ray.get(task.remote(argument))
    return result


def on_all_cpus(function: Callable[..., Answer], calls: Sequence[tuple[object, ...]]) -> list[Answer]:
    """`function` of each tuple of arguments, in tasks of the connected Ray, one for each CPU at a time."""
    import ray

    task = ray.remote(num_cpus=1)(function)
    answers: list[Answer] = ray.get([task.remote(*arguments) for arguments in calls])
    return answers


def _local_store() -> int:
    """Bytes of the object store of a Ray that starts here: Ray's default."""
    memory = int(psutil.virtual_memory().available * STORE_FRACTION)
    limit = MAX_STORE_MAC if sys.platform == "darwin" else MAX_STORE
    if os.path.isdir("/dev/shm"):
        limit = min(limit, int(shutil.disk_usage("/dev/shm").total * 0.95))
    return min(memory, limit)


def _local_gpus() -> int:
    """GPUs that this process sees, without the import of PyTorch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(list(GPUS.iterdir())) if GPUS.is_dir() else 0
    return (
        count if visible is None else min(count, len([name for name in visible.split(",") if name not in ("", "-1")]))
    )
