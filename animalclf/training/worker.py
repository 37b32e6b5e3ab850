"""The training of each worker: a rank of Ray Train, or an actor that is the only one."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from typing import Any

import ray
import ray.train
import torch

from animalclf.data.device_loader import DeviceLoaders
from animalclf.data.loader import Loader, MemoryLoader
from animalclf.data.prepared_set import open_prepared
from animalclf.data.ray_loader import ImageCache, RayLoader
from animalclf.data.sampler import Phase, SamplingPlan
from animalclf.errors import UserError
from animalclf.rows import EpochRow, ProgressEvent, TrainingResult
from animalclf.runs import Run
from animalclf.training.distributed import RankContext, all_gather, on_all_ranks, set_up_cpu
from animalclf.training.task import Task
from animalclf.training.train import ignore, train

# Ray polls for reports once a second and holds up a rank that has a second one. Epochs can be much shorter.
REPORT_SECONDS = 2.0
BEGIN_POLL_SECONDS = 0.02  # until the driver has written the run folder


class ThrottledReports:
    """Reports to Ray Train at most every REPORT_SECONDS, in the same epochs on all ranks, because Ray waits for the
    report of every rank."""

    def __init__(self) -> None:
        self.last_report = time.monotonic()

    def __call__(self, row: EpochRow) -> None:
        """Called on every rank at the end of an epoch."""
        if all_gather(time.monotonic() - self.last_report > REPORT_SECONDS)[0]:  # rank 0's clock decides
            self.last_report = time.monotonic()
            ray.train.report(row.to_dict())


class RankLoaders:
    """Creates the loaders of this rank: from device memory if the images fit, else from Ray Data.

    An only worker on CPUs reads images that are not augmented itself, from the object store: the processes of Ray
    Data's tasks would take CPU time from the model, for a copy.
    """

    def __init__(self, cache: ImageCache, image_bytes: int, ranks: RankContext) -> None:
        self.cache, self.ranks = cache, ranks
        self.on_device = DeviceLoaders(image_bytes, ranks.device, ranks.rank, ranks.world_size)

    def __call__(self, plan: SamplingPlan, passes: Iterable[tuple[Phase, int]]) -> Loader:
        ranks, passes = self.ranks, list(passes)
        alone = ranks.world_size == 1 and ranks.device.type == "cpu"
        if alone and self.cache.refs and all(phase != "train" for phase, _ in passes):
            return MemoryLoader(plan, self.cache.images())
        device_loader = self.on_device.loader_for(plan, self.cache.images)
        return device_loader or RayLoader(plan, self.cache, ranks.rank, ranks.world_size, passes)


def train_rank(task: Task) -> TrainingResult | UserError | None:
    """Train on this rank of Ray Train's worker group. Returns as `_train`, and None if the training is to stop."""
    group = ray.util.get_current_placement_group()
    if not ray.get(task.mailbox.enter.remote(group)):
        return None
    context = ray.train.get_context()
    ranks = RankContext(context.get_world_rank(), context.get_world_size(), _device())
    return _train(task, ranks, context.get_local_world_size(), ThrottledReports(), group)


def _device() -> torch.device:
    """Of this rank. Ray Train's PyTorch part is imported for GPUs only: it delays the first step by a tenth of a
    second."""
    if not ray.get_gpu_ids():
        return torch.device("cpu")
    from ray.train.torch import get_device

    return get_device()


def train_alone(task: Task) -> TrainingResult | UserError:
    """Train in this process of an actor, which is the only rank. Returns as `_train`."""
    device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
    actor = ray.get_runtime_context().current_actor
    try:
        return _train(task, RankContext(device=device), 1, ignore, actor)
    finally:
        ray.get(task.mailbox.workers.remote())  # all events have arrived: the mailbox is the next training's, too
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _train(
    task: Task, ranks: RankContext, local_world_size: int, on_epoch: Callable[[EpochRow], None], workers: Any
) -> TrainingResult | UserError:
    """Train on this rank. A UserError, which train() raises on all ranks or on none, is returned, because a restart
    would not help. `workers`: as for Mailbox.enter."""
    set_up_cpu(task.config.train.threads, local_world_size)
    prepared = open_prepared(task.prepared)
    loaders = RankLoaders(task.cache, prepared.stored_size**2 * 3, ranks)

    def report(event: ProgressEvent) -> None:
        if ranks.rank == 0:
            task.mailbox.post.remote(event, workers)

    try:
        if task.check:
            on_all_ranks(task.check)
        while not ray.get(task.mailbox.may_train.remote()):
            time.sleep(BEGIN_POLL_SECONDS)
        return train(task.config, prepared, Run(task.run), loaders, ranks, on_epoch, report)
    except UserError as error:
        return error
