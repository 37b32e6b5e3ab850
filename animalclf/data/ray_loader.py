"""The Ray Data edge of training: input tasks on any node make the plan's batches.

The tasks of a run are one sequence (epoch 0 train, epoch 0 val, epoch 1 train, ...), made as it is needed; each makes a
few consecutive batches of one rank. So the first batch of an epoch is made while the previous epoch ends, and nothing
is listed or read again. The plan alone decides which image is in which batch, as in `MemoryLoader`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice, tee
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from animalclf.cluster import LOADING_RESOURCE, OWN_RAY_VARIABLE
from animalclf.data.disk_cache import LocalShards, readable_in_place
from animalclf.data.loader import Batch, StoredImages, make_batch
from animalclf.data.prepared_set import Prepared
from animalclf.data.sampler import Phase, SamplingPlan, batch_edges
from animalclf.data.shards import read_shard
from animalclf.utils.malloc import keep_freed_memory

MAX_TASK_BYTES = 96 * 2**20
"""Images of one task: about 2,000 of 128 px, so that a task's own cost (20 ms) is small."""
EXECUTION_TASKS = 128
"""Tasks of one execution of Ray Data, which submits all of them (half a millisecond each) before it starts the
first."""
NEXT_EXECUTION_AT = 4
"""Remaining blocks of an execution when the next one starts."""
MAX_PREFETCH_BYTES, MAX_PREFETCH_FRACTION, MIN_PREFETCH_TASKS = 2**30, 0.2, 10
"""Finished batches that wait for one rank: at most these bytes, and this fraction of the smallest node's object store;
that is split into at least this many tasks, or tasks block each other."""


@dataclass(frozen=True, eq=False)
class ImageCache:
    """The images of a prepared set for the input tasks: in the object store (`refs`, one per shard), or on each node's
    disk."""

    prepared: Prepared
    refs: list[ray.ObjectRef]
    num_cpus: float
    """Of each input task."""
    shard: np.ndarray
    row: np.ndarray

    def images(self) -> StoredImages:
        """The images, readable in this process."""
        return StoredImages(ray.get(self.refs) if self.refs else LocalShards(self.prepared), self.shard, self.row)


def cache_images(prepared: Prepared, memory: bool = True, num_cpus: float = 1.0) -> ImageCache:
    """Load the shards into the object store, or (`memory` False) decode them to the nodes' disks, in parallel on any
    node. Returns at once; the first reader of a shard waits for it.

    `num_cpus`: of each input task. Less than one starts more processes than there are CPUs, each of which imports
    everything; but it must fit into the CPUs of a node that training leaves free.

    The references are made by tasks, so that Ray reads a shard again when the node that holds it dies.
    """
    resources: dict[str, object] = {"num_cpus": num_cpus}
    local_slots = int(ray.cluster_resources().get(LOADING_RESOURCE, 0))
    if local_slots:
        resources = {"num_cpus": 0, "resources": {LOADING_RESOURCE: 1}}

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
            fetch_on_node = fetch.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True))
            for number in range(len(prepared.shard_paths())):
                fetch_on_node.remote(number)
    for _ in range(local_slots):
        ray.remote(**resources)(_warm_up).remote()
    shard, row = prepared.manifest["shard"].to_numpy(), prepared.manifest["row"].to_numpy()
    return ImageCache(prepared, refs, num_cpus, shard, row)


def _warm_up() -> None:
    """Import what input tasks need into a process of a local Ray, which has them next, while the training workers still
    import PyTorch."""
    import ray.data  # noqa: F401


@dataclass(frozen=True)
class _Task:
    phase: Phase
    epoch: int
    first_step: int
    last_step: int
    """Exclusive."""


class RayLoader:
    """The batches of one rank, made by Ray Data. Passes are requested in their order: train and val of the first epoch,
    of the next, ..."""

    def __init__(
        self, plan: SamplingPlan, cache: ImageCache, rank: int, world_size: int, passes: Iterable[tuple[Phase, int]]
    ) -> None:
        self.plan, self.rank, self.world_size = plan, rank, world_size
        prefetch_bytes = _prefetch_bytes(world_size)
        self.tasks, submitted = tee(_tasks(plan, rank, world_size, passes, prefetch_bytes))
        self.next_task = next(self.tasks, None)
        self.blocks = _execute(submitted, plan, cache, rank, world_size, prefetch_bytes)

    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]:
        """The batches of one pass; the run's first call starts the input tasks."""
        rows = self.plan.batch_rows(phase, epoch, self.rank, self.world_size)
        while (task := self.next_task) and (task.phase, task.epoch) == (phase, epoch):
            block = next(self.blocks)
            self.next_task = next(self.tasks, None)
            start = 0
            for index in rows[task.first_step : task.last_step]:
                batch = {name: column[start : start + len(index)] for name, column in block.items()}
                start += len(index)
                if not np.array_equal(batch["index"], index):
                    raise RuntimeError(
                        f"the batches of Ray Data differ from the sampling plan in {phase} of epoch {epoch}: "
                        "this is a bug, please report it"
                    )
                if len(index):
                    yield batch


def _tasks(
    plan: SamplingPlan, rank: int, world_size: int, passes: Iterable[tuple[Phase, int]], prefetch_bytes: int
) -> Iterator[_Task]:
    """The tasks of one rank for `passes`, of which `prefetch_bytes` of batches wait for it."""
    images_per_rank = max(1, plan.batch_size // world_size)
    task_bytes = min(MAX_TASK_BYTES, prefetch_bytes // MIN_PREFETCH_TASKS)
    max_steps = max(1, task_bytes // (3 * plan.input_size**2) // images_per_rank)
    steps = 1  # of a task: few at first, so that the run's first batch is ready early
    for phase, epoch in passes:
        edges = batch_edges(len(plan.rows[phase]), plan.batch_size, world_size)
        sizes = edges[:, rank + 1] - edges[:, rank]
        first = 0
        while first < len(edges):
            last = min(first + steps, len(edges))
            if sizes[first:last].sum():  # a task without images (more ranks than validation rows) makes no block
                yield _Task(phase, epoch, first, last)
            first, steps = last, min(2 * steps, max_steps)


def _prefetch_bytes(world_size: int) -> int:
    """Bytes of finished batches that may wait for one rank. Nodes that join or leave may report no object store: they
    are left out, because a limit of 0 bytes would block the input forever."""
    stores = [node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"]]
    limit = min([MAX_PREFETCH_BYTES, *(int(MAX_PREFETCH_FRACTION * store) for store in stores if store)])
    return (
        limit // world_size if os.environ.get(OWN_RAY_VARIABLE) else limit
    )  # in a local Ray all ranks share one store


def _execute(
    tasks: Iterator[_Task], plan: SamplingPlan, cache: ImageCache, rank: int, world_size: int, prefetch_bytes: int
) -> Iterator[Batch]:
    """One block of columns per task, in the order of `tasks`; at most `prefetch_bytes` of them wait for the reader."""
    # Large arrays go to the store once, not into every task's description. The references are passed separately, so
    # that Ray counts their holders.
    shared, refs = ray.put((plan, replace(cache, refs=[]))), cache.refs

    def start(execution: list[_Task]) -> Iterator[Batch]:
        import ray.data

        from animalclf.cluster import configure_ray_data

        context = configure_ray_data()
        context.execution_options.preserve_order = True
        context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
            object_store_memory=prefetch_bytes
        )

        def load_block(block: Batch) -> Batch:
            return _load_batches(execution[int(block["id"][0])], shared, refs, rank, world_size)

        count = len(execution)
        numbers = ray.data.read_datasource(_numbers(count), num_cpus=cache.num_cpus, override_num_blocks=count)
        dataset = numbers.map_batches(load_block, batch_size=None, num_cpus=cache.num_cpus)
        blocks = iter(dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1))
        return chain([next(blocks)], blocks)  # `next` starts the execution

    with ThreadPoolExecutor(1) as background:
        current = list(islice(tasks, EXECUTION_TASKS))
        execution = background.submit(start, current)
        while current:
            blocks, next_tasks = execution.result(), list(islice(tasks, EXECUTION_TASKS))
            for number in range(len(current)):
                if number == max(0, len(current) - NEXT_EXECUTION_AT) and next_tasks:
                    execution = background.submit(start, next_tasks)
                yield next(blocks)
            current = next_tasks


def _numbers(count: int) -> Any:
    """A datasource of 0 to `count`, one number per block. `ray.data.range` takes a whole CPU per block, so that its
    tasks never start if less than a CPU is free; with the `num_cpus` of the input tasks, Ray Data fuses both into one
    task."""
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class Numbers(Datasource):
        def estimate_inmemory_data_size(self) -> int:
            return 8 * count

        def get_read_tasks(
            self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
        ) -> list[ReadTask]:
            metadata = BlockMetadata(num_rows=1, size_bytes=8, input_files=None, exec_stats=None)
            return [ReadTask(partial(_number, number), metadata) for number in range(count)]

    return Numbers()


def _number(number: int) -> list[Any]:
    """One block. A function of the module is sent by name; a lambda would be sent as code, at twice the cost."""
    import pyarrow as pa

    return [pa.table({"id": [number]})]


def _load_batches(task: _Task, shared: ray.ObjectRef, refs: list[ray.ObjectRef], rank: int, world_size: int) -> Batch:
    """In an input task: the batches of `task`, one after another in one block."""
    import cv2

    cv2.setNumThreads(1)  # the tasks are the parallelism
    if shared not in _process_cache:  # once per process: it computes an epoch's order and opens each shard once
        keep_freed_memory()
        _process_cache.clear()
        plan, cache = ray.get(shared)
        _process_cache[shared] = plan, replace(cache, refs=refs).images()
    plan, images = _process_cache[shared]
    rows = plan.batch_rows(task.phase, task.epoch, rank, world_size)[task.first_step : task.last_step]
    return make_batch(plan, images, task.phase, task.epoch, np.concatenate(rows))


_process_cache: dict[ray.ObjectRef, tuple[SamplingPlan, StoredImages]] = {}
"""In an input task's process: the plan and images of the last training, by their reference."""
