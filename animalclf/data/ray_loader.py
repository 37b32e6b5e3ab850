"""The Ray Data edge of training: input tasks on any node make the batches of the plan from images in the object store or on disk.

The tasks of a run are one list (epoch 0 train, epoch 0 val, epoch 1 train, ...), each making a few consecutive batches of one rank. So the first
batch of an epoch is made while the last one ends, nothing is listed or read again, and which image stands in which batch is the plan's business
alone, the same as in `MemoryLoader`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from animalclf.cluster import LOADING, OWN
from animalclf.data.disk_cache import LocalShards, readable_in_place
from animalclf.data.loader import Batch, StoredImages, make_batch
from animalclf.data.prepared_set import Prepared, read_shard
from animalclf.data.sampler import Phase, SamplingPlan, batch_edges
from animalclf.utils.malloc import keep_freed_memory

TASK_BYTES = (
    96 * 2**20
)  # of the images that one task makes, at most: its own cost (some 20 ms in all) is spread over two thousand of 128 px
TOGETHER = 128  # tasks of one execution of Ray Data, which sends all of them out before it starts the first, at half a millisecond each
EARLY = 4  # blocks that are still to be taken of one execution when the next begins
# Finished batches that may wait for one rank: so much, or so much of the smallest node's object store; of so many tasks at least, or tasks wait.
AHEAD_BYTES, AHEAD_SHARE, AHEAD_TASKS = 2**30, 0.2, 10


@dataclass(frozen=True, eq=False)
class ImageCache:
    """Where the input tasks find a prepared set's images: in the object store (`refs`, one a shard), or in files on their own node's disk."""

    prepared: Prepared
    refs: list[ray.ObjectRef]
    num_cpus: float
    """Of each input task."""
    shard: np.ndarray
    row: np.ndarray

    def images(self) -> StoredImages:
        """The images, to be read in this process."""
        return StoredImages(ray.get(self.refs) if self.refs else LocalShards(self.prepared), self.shard, self.row)


def cache_images(prepared: Prepared, memory: bool = True, num_cpus: float = 1.0) -> ImageCache:
    """Load the shards into the object store, or (`memory` False) see to it that they lie decoded on the nodes' disks, in parallel on any node.
    Returns at once; who needs a shard first waits for it.

    `num_cpus`: of each input task. Less than one would start more processes than there are CPUs, each of which imports everything;
    but it must fit into what the training leaves of a node.

    The references are made by tasks, so that Ray reads a shard again when the node that held it dies.
    """
    resources: dict[str, Any] = (
        {"num_cpus": 0, "resources": {LOADING: 1}} if LOADING in ray.cluster_resources() else {"num_cpus": num_cpus}
    )

    @ray.remote(max_retries=-1, scheduling_strategy="SPREAD", **resources)
    def load(path: str, size: int) -> np.ndarray:
        keep_freed_memory()
        return read_shard(path, size)[0]

    @ray.remote(**resources)
    def fetch(number: int) -> None:
        LocalShards(prepared)[number]

    refs = [load.remote(path, prepared.stored_size) for path in prepared.shard_paths()] if memory else []
    if not memory and not readable_in_place(prepared):
        for node in (node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")):
            fetch_there = fetch.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True))
            for number in range(len(prepared.shard_paths())):
                fetch_there.remote(number)
    return ImageCache(
        prepared, refs, num_cpus, prepared.manifest["shard"].to_numpy(), prepared.manifest["row"].to_numpy()
    )


@dataclass(frozen=True)
class _Task:
    phase: Phase
    epoch: int
    first: int  # step
    last: int  # exclusive


class RayLoader:
    """The batches of one rank, made by Ray Data. Passes must be asked for in their order: train and val of `first_epoch`, of the next, ..."""

    def __init__(
        self, plan: SamplingPlan, cache: ImageCache, rank: int, world_size: int, passes: Sequence[tuple[Phase, int]]
    ) -> None:
        self.plan, self.rank, self.world_size = plan, rank, world_size
        per_rank = max(1, plan.batch_size // world_size)
        ahead_bytes = _ahead_bytes(world_size)
        max_steps = max(1, min(TASK_BYTES, ahead_bytes // AHEAD_TASKS) // (3 * plan.input_size**2) // per_rank)
        steps = 1  # of a task: few at first, so that the run's first batch comes soon
        self.tasks = []
        for phase, epoch in passes:
            edges = batch_edges(len(plan.rows[phase]), plan.batch_size, world_size)
            sizes = (
                edges[:, rank + 1] - edges[:, rank]
            )  # a task without images (validation on more ranks than rows) would give no block
            first = 0
            while first < len(edges):
                last = min(first + steps, len(edges))
                if sizes[first:last].sum():
                    self.tasks.append(_Task(phase, epoch, first, last))
                first, steps = last, min(2 * steps, max_steps)
        self.next_task = 0
        self.blocks = _execute(self.tasks, plan, cache, (rank, world_size), ahead_bytes)

    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]:
        """The batches of one pass; the first call of the run starts the input tasks, later ones find their batches ready."""
        rows = self.plan.batch_rows(phase, epoch, self.rank, self.world_size)
        while (
            self.next_task < len(self.tasks)
            and (task := self.tasks[self.next_task]).phase == phase
            and task.epoch == epoch
        ):
            block = next(self.blocks)
            self.next_task += 1
            start = 0
            for index in rows[task.first : task.last]:
                batch = {name: column[start : start + len(index)] for name, column in block.items()}
                start += len(index)
                if not np.array_equal(batch["index"], index):
                    raise RuntimeError(
                        f"input pipeline out of step with the plan in {phase} of epoch {epoch}: this is a bug, please report it"
                    )
                if len(index):
                    yield batch


def _ahead_bytes(world_size: int) -> int:
    """Bytes of finished batches that may wait for one rank. A node that is just coming or going may have no store yet or any more; with room for
    nothing the input would never end."""
    stores = [node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"]]
    room = min([AHEAD_BYTES, *(int(AHEAD_SHARE * store) for store in stores if store)])
    return room // world_size if os.environ.get(OWN) else room  # in a Ray of our own all ranks share one store


def _execute(
    tasks: list[_Task], plan: SamplingPlan, cache: ImageCache, rank_of: tuple[int, int], ahead_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
    """One block of columns a task, in the order of `tasks`; `ahead_bytes` of them may wait to be taken. `rank_of`: rank and world size."""
    # Large arrays go to the store once, not into every task's description; the references travel apart, so that Ray knows who holds them.
    shared, refs = ray.put((plan, replace(cache, refs=[]))), cache.refs

    def start(some: list[_Task]) -> Iterator[dict[str, np.ndarray]]:
        import ray.data

        from animalclf.cluster import data_context

        context = data_context()
        context.execution_options.preserve_order = True
        context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
            object_store_memory=ahead_bytes
        )

        def work(block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return _make(some[int(block["id"][0])], shared, refs, rank_of)

        numbers = ray.data.read_datasource(_numbers(len(some)), num_cpus=cache.num_cpus, override_num_blocks=len(some))
        dataset = numbers.map_batches(work, batch_size=None, num_cpus=cache.num_cpus)
        blocks = iter(dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1))
        return chain([next(blocks)], blocks)  # asking for the first starts it

    with ThreadPoolExecutor(1) as background:
        begun = background.submit(start, tasks[:TOGETHER])
        for first in range(0, len(tasks), TOGETHER):
            blocks, count = begun.result(), len(tasks[first : first + TOGETHER])
            for taken in range(count):
                if taken == max(0, count - EARLY) and first + count < len(tasks):
                    begun = background.submit(start, tasks[first + count : first + count + TOGETHER])
                yield next(blocks)


def _numbers(count: int) -> Any:
    """0 to `count`, a block each, as a source of Ray Data. Its own `range` claims a whole CPU a block, and so becomes tasks beside the input tasks,
    which never start where less than a CPU is free; with the `num_cpus` of the input tasks, both are one task."""
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class Numbers(Datasource):
        def estimate_inmemory_data_size(self) -> int:
            return 8 * count

        def get_read_tasks(
            self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
        ) -> list[ReadTask]:
            about = BlockMetadata(num_rows=1, size_bytes=8, input_files=None, exec_stats=None)
            return [ReadTask(partial(_number, number), about) for number in range(count)]

    return Numbers()


def _number(number: int) -> list[Any]:
    """A function of a module, which is sent by its name; a lambda would be sent as its code, at twice the cost."""
    import pyarrow as pa

    return [pa.table({"id": [number]})]


def _make(task: _Task, shared: Any, refs: list[ray.ObjectRef], rank_of: tuple[int, int]) -> dict[str, np.ndarray]:
    """In an input task: the batches of `task`, one after another in one block."""
    import cv2

    cv2.setNumThreads(1)  # the tasks are the parallelism
    if (
        shared not in _process_cache
    ):  # once a process: an epoch's order is computed once, and a shard's file looked into once
        keep_freed_memory()
        _process_cache.clear()
        plan, cache = ray.get(shared)
        _process_cache[shared] = plan, replace(cache, refs=refs).images()
    plan, images = _process_cache[shared]
    rows = plan.batch_rows(task.phase, task.epoch, *rank_of)[task.first : task.last]
    return dict(make_batch(plan, images, task.phase, task.epoch, np.concatenate(rows)))


_process_cache: dict[Any, tuple[SamplingPlan, StoredImages]] = {}
"""Of an input task's process: the plan and images of the last training, by their reference."""
