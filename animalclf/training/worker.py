"""The training function of each Ray Train worker."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch

from animalclf.config import Config
from animalclf.data.device_loader import DeviceLoaders
from animalclf.data.loader import Loader, MemoryLoader
from animalclf.data.prepared_set import open_prepared
from animalclf.data.ray_loader import ImageCache, RayLoader
from animalclf.data.sampler import Phase, SamplingPlan
from animalclf.errors import UserError
from animalclf.rows import EpochRow, ProgressEvent, TrainingResult
from animalclf.runs import Run
from animalclf.training.distributed import RankContext, all_gather, set_up_cpu
from animalclf.training.train import train

# Ray polls for reports once a second and holds up a rank that has a second one. Epochs can be much shorter.
REPORT_SECONDS = 2.0


@dataclass(frozen=True)
class Task:
    """What every worker receives: the training, by URLs of its prepared set and run folder."""

    config: Config
    prepared: str
    run: str
    cache: ImageCache
    mailbox: Any  # actor handle of progress.Mailbox


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


def worker(settings: dict[str, Task]) -> TrainingResult | UserError | None:
    """Ray Train's loop function: train on this rank. Returns None if the training is to stop. A UserError, which
    train() raises on all ranks or on none, is returned, because a restart would not help."""
    task = settings["task"]
    group = ray.util.get_current_placement_group()
    if not ray.get(task.mailbox.enter.remote(group)):
        return None
    context = ray.train.get_context()
    ranks = RankContext(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    set_up_cpu(task.config.train.threads, context.get_local_world_size())
    prepared = open_prepared(task.prepared)
    loaders = RankLoaders(task.cache, prepared.stored_size**2 * 3, ranks)

    def report(event: ProgressEvent) -> None:
        if ranks.rank == 0:
            task.mailbox.post.remote(event, group)

    try:
        return train(task.config, prepared, Run(task.run), loaders, ranks, ThrottledReports(), report)
    except UserError as error:
        return error
