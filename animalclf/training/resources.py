"""Resource checks before any long work: room for the training workers, memory for the images, paths that every node
must see."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from animalclf.cluster_size import cluster_text, max_resources, resources_text
from animalclf.data.prepared_set import Prepared
from animalclf.errors import UserError
from animalclf.utils import storage
from animalclf.utils.text import count_text

RESIZE_SECONDS = 30.0  # between two checks of an elastic training for changes of the cluster


@dataclass(frozen=True)
class Workers:
    """The number of training workers: from `minimum` to `maximum`, as the cluster has room, each on a GPU or on CPUs.
    (0, 0): one for each GPU, or 1 on CPUs."""

    minimum: int
    maximum: int
    use_gpu: bool = False
    reused: bool = False
    """Whether the next training of this process trains in the same worker process, if it is a single one."""

    @classmethod
    def fixed(cls, count: int, use_gpu: bool = False, reused: bool = False) -> Workers:
        """A fixed number of workers."""
        return cls(count, count, use_gpu, reused)

    @classmethod
    def parse(cls, text: str) -> Workers:
        """`4`, or `2:8` for elastic workers. Raises UserError for anything else."""
        match = re.fullmatch(r"(\d+)(?::(\d+))?", text.strip())
        minimum, maximum = (int(match[1]), int(match[2] or match[1])) if match else (-1, -1)
        if not match or minimum > maximum or (match[2] and not minimum):
            raise UserError(
                f"--workers {text}: write a number, as in --workers 4, or minimum and maximum, as in --workers 2:8"
            )
        return cls(minimum, maximum)

    @property
    def elastic(self) -> bool:
        """Whether the number may change while the training runs."""
        return self.minimum < self.maximum

    @property
    def text(self) -> str:
        """`3 GPU workers`."""
        kind = "GPU" if self.use_gpu else "CPU"
        return (
            f"{self.minimum} to {self.maximum} {kind} workers"
            if self.elastic
            else f"{self.maximum} {kind} worker{'s' * (self.maximum > 1)}"
        )

    def __str__(self) -> str:
        return f"{self.minimum}:{self.maximum}" if self.elastic else str(self.maximum)


def scaling(workers: Workers) -> Any:
    """Ray Train's ScalingConfig. CPU workers are spread over the nodes, since each uses all cores of its node; GPU
    workers are packed."""
    import ray.train

    resources = None
    if workers.elastic and not workers.use_gpu:
        cpus = _cpus_of_nodes()
        if len(cpus) == 1:  # of one node no part can be lost; one CPU stays free for input tasks
            workers = replace(workers, maximum=max(workers.minimum, min(workers.maximum, cpus[0] - 1)))
        resources = {"CPU": _elastic_cpus(cpus)[0]}
    return ray.train.ScalingConfig(
        num_workers=(workers.minimum, workers.maximum) if workers.elastic else workers.maximum,
        use_gpu=workers.use_gpu,
        placement_strategy="PACK" if workers.use_gpu else "SPREAD",
        resources_per_worker=resources,
        elastic_resize_monitor_interval_s=RESIZE_SECONDS,
    )


def _elastic_cpus(cpus: list[int]) -> tuple[float, float]:
    """num_cpus of an elastic CPU worker, and of an input task, on nodes with these CPUs.

    Ray starts as many elastic workers as fit, and with one CPU each they would leave none for input tasks, which would
    wait forever. On several nodes a worker therefore requests more than half of the smallest node's CPUs: the number
    that leaves the largest remainder on every node.
    """
    if len(cpus) < 2:
        return 1.0, 1.0
    candidates = np.arange(min(cpus) / 2 + 0.25, min(cpus), 0.25)
    remainder, worker_cpus = max((min(count % candidate for count in cpus), candidate) for candidate in candidates)
    return float(worker_cpus), min(1.0, float(remainder))


def input_cpus(workers: Workers) -> float:
    """num_cpus of an input task: 1, or what elastic CPU workers leave on every node."""
    return _elastic_cpus(_cpus_of_nodes())[1] if workers.elastic and not workers.use_gpu else 1.0


def _cpus_of_nodes() -> list[int]:
    """CPUs of each node that can run a CPU worker and an input task; if there is none, of each node with a CPU."""
    import ray

    cpus = [
        int(node["Resources"]["CPU"]) for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
    ]
    return [count for count in cpus if count > 1] or cpus


def preflight(workers: Workers, shared: list[str]) -> str:
    """Check that the cluster has room for the workers (elastic: for the minimum), and that every node sees the local
    paths `shared`. Returns a text of the cluster's resources. Raises UserError with what is available and what is
    requested."""
    import ray

    available = max_resources()
    cpus, gpus = int(available.get("CPU", 0)), int(available.get("GPU", 0))
    _check_room(workers, cpus, gpus)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    _check_visible(nodes, [path for path in shared if not storage.is_remote(path)])
    current, largest = cluster_text(), resources_text(len(nodes), cpus, gpus)
    return (
        current
        if current == largest
        else f"{current} now; {count_text(cpus, 'CPU')}, {count_text(gpus, 'GPU')} at most"
    )


def _check_room(workers: Workers, cpus: int, gpus: int) -> None:
    """Raises UserError if a cluster of at most these CPUs and GPUs has no room for the workers."""
    import ray

    if workers.use_gpu and workers.minimum > gpus:
        raise UserError(
            f"--workers {workers} with GPUs: the cluster has {count_text(gpus, 'GPU')} (at most); request fewer "
            "workers, or train on CPUs with --cpu"
        )
    worker_cpus, task_cpus = (0.0 if workers.use_gpu else 1.0), 1.0
    if workers.elastic and not workers.use_gpu:
        counts = _cpus_of_nodes()
        worker_cpus, task_cpus = _elastic_cpus(counts)
        capacity = sum(int(count // worker_cpus) for count in counts)
        may_grow = cpus > int(ray.cluster_resources().get("CPU", 0))
        if len(counts) > 1 and workers.minimum > capacity and not may_grow:
            raise UserError(
                f"--workers {workers}: the cluster has room for {capacity} elastic workers, which leave CPUs for input "
                "tasks on every node; request fewer workers"
            )
    needed, held = workers.minimum * worker_cpus + task_cpus, _held_cpus()
    if needed > cpus - held:
        smallest = worker_cpus + task_cpus
        remedy = f"use a Ray with at least {smallest + held:g} CPUs, or train without Ray: --local"
        own = f", of which the Ray task or actor of this call holds {held:g}" if held else ""
        raise UserError(
            f"--workers {workers}: the cluster has {count_text(cpus, 'CPU')} (at most){own}, workers and one input "
            f"task need {needed:g}; {'request fewer workers' if smallest <= cpus - held else remedy}"
        )


def _held_cpus() -> float:
    """CPUs of the Ray task or actor that this process runs, which no worker gets meanwhile; 0 in other processes."""
    import ray

    if "RAY_RAYLET_PID" not in os.environ:
        return 0.0
    try:
        return float(ray.get_runtime_context().get_assigned_resources().get("CPU", 0))
    except AssertionError:  # Ray's way to tell that this process, such as a job's, is not one of its workers
        return 0.0


def _check_visible(nodes: Sequence[Mapping[str, Any]], paths: list[str]) -> None:
    """Raises UserError for a path that some node does not see, such as a path on one node's disk."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if len(nodes) < 2 or not paths:
        return
    find_missing = ray.remote(num_cpus=0)(_missing)
    strategies = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    missing_on = ray.get([find_missing.options(scheduling_strategy=strategy).remote(paths) for strategy in strategies])
    for node, missing in zip(nodes, missing_on, strict=True):
        if missing:
            address = node["NodeManagerAddress"]
            raise UserError(
                f"{missing[0]}: not visible on node {address}; use s3:// or a folder that all {len(nodes)} nodes share"
            )


def concurrent_trials(cpus: int, gpus: int, nodes: int, workers: int, requested: int = 0) -> int:
    """The number of trials of a comparison at a time. On GPUs (0: on CPUs) as many as their workers fit, at most
    `requested`. On CPUs one for each node of a worker, since a CPU worker uses all cores of its node, or `requested`,
    at most as many as there are CPUs."""
    limit = min(gpus // workers, cpus) if gpus else cpus // (workers + 1)
    default = limit if gpus else min(nodes // workers, limit)
    return max(1, min(requested, limit) if requested else default)


def choose_cache(choice: str, prepared: Prepared, reserved: int = 0) -> tuple[bool, str]:
    """`choose_cache_in` the object stores of the connected cluster. `reserved`: bytes of other sets in the store."""
    return choose_cache_in(_object_stores(), choice, prepared.pixel_bytes, reserved)


def _object_stores() -> list[int]:
    """Bytes of each node's object store."""
    import ray

    return [int(node["Resources"].get("object_store_memory", 0)) for node in ray.nodes() if node["Alive"]]


def choose_cache_in(stores: Sequence[int], choice: str, size: int, reserved: int = 0) -> tuple[bool, str]:
    """Whether images of `size` bytes are cached in Ray's object stores of these bytes (else on the nodes' disks), and a
    text of that for the plan line.

    A node's store holds all images and the batches in transit, so "auto" chooses it if the images fill at most 70 %
    of the smallest store. Raises UserError for "memory" if they do not fit.
    """
    room = max(min(stores) * 0.7 - reserved, 0)
    text = f"images {size / 1e9:.2g} GB"
    if size <= room and choice != "disk":
        return True, f"{text} in memory"
    if choice == "memory":
        raise UserError(
            f"train.cache=memory: the prepared images take {size / 1e9:.2g} GB, the smallest node's object store has "
            f"room for {room / 1e9:.2g} GB; set train.cache=auto (which then reads them from disk), store them smaller "
            "(--set data.stored_size=...), or start Ray with a larger --object-store-memory"
        )
    return False, f"{text} from disk" + ("" if choice == "disk" else f" (memory has room for {room / 1e9:.2g} GB)")


def _missing(paths: list[str]) -> list[str]:
    return [path for path in paths if not storage.exists(path)]
