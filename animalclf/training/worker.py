"""What runs on each rank: the Ray Train side of `train`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch

from animalclf.config import Config
from animalclf.data.device_loader import DeviceFeed, fits
from animalclf.data.loader import Phase, Schedule
from animalclf.data.prepared_set import open_prepared
from animalclf.data.ray_loader import Cache, RayFeed
from animalclf.errors import UserError
from animalclf.runs import Run
from animalclf.training.distributed import Place, gather, set_up_cpu
from animalclf.training.train import Feed, Report, train

REPORT_SECONDS = 2.0  # Ray looks for reports once a second, and a rank that has a second one waits for that: an epoch can be over much sooner


@dataclass(frozen=True)
class Task:
    """What the driver sends to every rank."""

    config: Config
    prepared: str
    run: str
    cache: Cache
    mailbox: Any  # actor handle of mailbox.Mailbox


def now_and_then(report: Report) -> Report:
    """`report` for calls on every rank, of which some come through: one every REPORT_SECONDS at most, the same on all ranks, as `report` waits for
    all of them."""
    reported = time.monotonic()

    def passed_on(row: dict[str, Any]) -> None:
        nonlocal reported
        if gather(time.monotonic() - reported > REPORT_SECONDS)[0]:  # the first rank's clock decides
            reported = time.monotonic()
            report(row)

    return passed_on


def worker(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Ray Train's loop function: train on this rank. Returns None where the training is to stop. A UserError comes back as {"error": text}: a wrong
    setting is no fault that a restart would cure. (train() raises it on all ranks or on none.)"""
    task: Task = settings["task"]
    if not ray.get(task.mailbox.enter.remote(ray.util.get_current_placement_group())):
        return None
    context = ray.train.get_context()
    place = Place(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    set_up_cpu(task.config.train.threads, context.get_local_world_size())

    prepared = open_prepared(task.prepared)
    kept: list[DeviceFeed] = []

    def make_feed(schedule: Schedule, passes: Sequence[tuple[Phase, int]]) -> Feed:
        if fits(schedule, prepared.stored_size**2 * 3, place.device):
            # The evaluation at the end sees the same pictures as the epochs; the features of a frozen base are another selection.
            if not kept or kept[0].schedule is not schedule:
                kept[:] = [DeviceFeed(schedule, task.cache.pictures(), place.device, place.rank, place.world)]
            return kept[0]
        return RayFeed(schedule, task.cache, place.rank, place.world, passes)

    def on_progress(event: dict[str, Any]) -> None:
        if place.rank == 0:
            task.mailbox.post.remote(event)

    try:
        return train(task.config, prepared, Run(task.run), make_feed, place, now_and_then(ray.train.report), on_progress)
    except UserError as error:
        return {"error": str(error)}
