"""What the cluster can hold, found out before any long work: the training workers, the pictures' memory, the paths that every node must see."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from animalclf.cluster import at_most
from animalclf.data.prepared_set import Prepared
from animalclf.errors import UserError
from animalclf.utils import storage

RESIZE_SECONDS = 30.0  # how often an elastic training looks whether the cluster has changed


@dataclass(frozen=True)
class Workers:
    """How many training workers: from `fewest` to `most`, whatever the cluster has at the time. (0, 0): one a GPU, or 1 on CPUs."""

    fewest: int
    most: int

    @classmethod
    def fixed(cls, count: int) -> Workers:
        return cls(count, count)

    @classmethod
    def parse(cls, text: str) -> Workers:
        """`4`, or `2:8` for elastic workers. Raises UserError for anything else."""
        found = re.fullmatch(r"(\d+)(?::(\d+))?", text.strip())
        fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (-1, -1)
        if not found or fewest > most or (found[2] and not fewest):
            raise UserError(f"--workers {text}: give a number, as in --workers 4, or the fewest and the most, as in --workers 2:8")
        return cls(fewest, most)

    @property
    def elastic(self) -> bool:
        return self.fewest < self.most

    def of(self, kind: str) -> str:
        """`3 GPU workers`."""
        return f"{self.fewest} to {self.most} {kind} workers" if self.elastic else f"{self.most} {kind} worker{'s' if self.most > 1 else ''}"

    def __str__(self) -> str:
        return f"{self.fewest}:{self.most}" if self.elastic else str(self.most)


def scaling(workers: Workers, use_gpu: bool) -> Any:
    """Ray Train's ScalingConfig. CPU workers go one a node first, since each uses all cores that it finds; GPU workers close together."""
    import ray.train

    claim = None
    if workers.elastic and not use_gpu:
        cpus = _cpus_of_nodes()
        if len(cpus) == 1:  # nothing can be lost without losing all; one CPU stays for input tasks
            workers = Workers(workers.fewest, max(workers.fewest, min(workers.most, cpus[0] - 1)))
        claim = {"CPU": _elastic_claims(cpus)[0]}
    return ray.train.ScalingConfig(
        num_workers=(workers.fewest, workers.most) if workers.elastic else workers.most,
        use_gpu=use_gpu,
        placement_strategy="PACK" if use_gpu else "SPREAD",
        resources_per_worker=claim,
        elastic_resize_monitor_interval_s=RESIZE_SECONDS,
    )


def _elastic_claims(cpus: list[int]) -> tuple[float, float]:
    """CPUs of an elastic CPU worker, and of an input task beside it, on nodes of so many. Ray gives such workers every CPU that they can use, and
    input tasks would wait for ever. On several nodes a worker therefore claims more than half of the smallest, and so much that of every node
    something is left however many workers it takes."""
    if len(cpus) < 2:
        return 1.0, 1.0
    claims = np.arange(min(cpus) / 2 + 0.25, min(cpus), 0.25)
    left, claim = max((min(count % claim for count in cpus), claim) for claim in claims)
    return float(claim), min(1.0, float(left))


def input_claim(workers: Workers, use_gpu: bool) -> float:
    """CPUs that an input task claims: one, or what elastic CPU workers leave of every node."""
    return _elastic_claims(_cpus_of_nodes())[1] if workers.elastic and not use_gpu else 1.0


def _cpus_of_nodes() -> list[int]:
    """CPUs of each node that can hold a CPU worker: one more than a worker takes, where there are such nodes."""
    import ray

    cpus = [int(node["Resources"]["CPU"]) for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    return [count for count in cpus if count > 1] or cpus


def preflight(workers: Workers, use_gpu: bool, shared: list[str]) -> str:
    """Check, before any long work, that the cluster can place the run (elastic: with the fewest workers), and that every node sees the local
    paths `shared`.

    Returns what was found, in words for the plan line. Raises UserError that says what is there and what was asked.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    have = at_most()
    cpus, gpus = int(have.get("CPU", 0)), int(have.get("GPU", 0))
    if use_gpu and workers.fewest > gpus:
        raise UserError(f"--workers {workers} with GPUs: the cluster has {gpus} GPUs (at most); ask for fewer workers, or train on CPUs with --cpu")
    claim, beside = (0.0 if use_gpu else 1.0), 1.0
    if workers.elastic and not use_gpu:
        counts = _cpus_of_nodes()
        claim, beside = _elastic_claims(counts)
        places, may_grow = sum(int(count // claim) for count in counts), cpus > int(ray.cluster_resources().get("CPU", 0))
        if len(counts) > 1 and workers.fewest > places and not may_grow:
            raise UserError(f"--workers {workers}: elastic workers leave room for input on every node; the cluster has places for {places} of them")
    needed = workers.fewest * claim + beside
    if needed > cpus:
        raise UserError(
            f"--workers {workers}: the cluster has {cpus} CPUs (at most), workers and one input task need {needed:g}; ask for fewer workers"
        )
    nodes = [node for node in ray.nodes() if node["Alive"]]
    local = [path for path in shared if not storage.is_remote(path)]
    if len(nodes) > 1 and local:
        # A zero-CPU task on every node looks for the folders: shared file systems pass, node-local paths do not.
        look = ray.remote(num_cpus=0)(_missing)
        there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        found = ray.get([look.options(scheduling_strategy=strategy).remote(local) for strategy in there])
        for node, missing in zip(nodes, found, strict=True):
            if missing:
                where = node["NodeManagerAddress"]
                raise UserError(f"{missing[0]}: not visible on node {where}; use s3:// or a folder that all {len(nodes)} nodes share")
    now, most = what_there_is(), _in_words(len(nodes), cpus, gpus)
    return now if now == most else f"{now} now; {cpus} CPUs, {gpus} GPUs at most"


def what_there_is() -> str:
    """The cluster as it is now, in words."""
    import ray

    have = ray.cluster_resources()
    return _in_words(sum(node["Alive"] for node in ray.nodes()), int(have.get("CPU", 0)), int(have.get("GPU", 0)))


def _in_words(nodes: int, cpus: int, gpus: int) -> str:
    return f"{nodes} node{'s' if nodes > 1 else ''}, {cpus} CPUs" + (f", {gpus} GPUs" if gpus else "")


def choose_cache(choice: str, prepared: Prepared, beside: int = 0) -> tuple[bool, str]:
    """Whether the pictures wait in Ray's object store (or on the nodes' disks), and that in words for the plan line. `beside`: bytes of other
    sets that lie there too.

    A node's store holds all of them beside batches on their way, so "auto" takes it where they fill at most 70 % of the smallest store. Raises
    UserError for "memory" where they do not fit.
    """
    import ray

    stores = [node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"]]
    size, room = prepared.pixel_bytes, max(min(stores) * 0.7 - beside, 0)
    what = f"pictures {size / 1e9:.2g} GB"
    if size <= room and choice != "disk":
        return True, f"{what} in memory"
    if choice == "memory":
        raise UserError(
            f"train.cache=memory: the prepared pictures take {size / 1e9:.2g} GB, the smallest node's object store has room for {room / 1e9:.2g} GB; "
            "leave train.cache at auto (they are then read from disk), store them smaller (--set data.stored_size=...), or start Ray with a "
            "larger --object-store-memory"
        )
    return False, f"{what} from disk" + ("" if choice == "disk" else f" (memory has room for {room / 1e9:.2g} GB)")


def _missing(paths: list[str]) -> list[str]:
    return [path for path in paths if not storage.exists(path)]
