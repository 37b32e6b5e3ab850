"""The edges to Ray in this process, for commands that are killed a hundred times: Ray Data as a loop, and Tune as one
trial after another. All files are written as always."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import ray
import ray.data

from animalclf import cluster
from animalclf.data.ray_loader import ImageCache
from animalclf.errors import UserError
from animalclf.inference import classify
from animalclf.rows import TrialEntry, TrialFailure
from animalclf.runs import Run
from animalclf.training import checks, launch, resources
from animalclf.tuning import compare
from animalclf.tuning.comparison_dir import TrialTracker, TuneEvent
from animalclf.tuning.trials import ComparisonJob

Block = Any
NODES = [{"Alive": True, "NodeID": "0", "Resources": {"CPU": 2.0, "object_store_memory": 1e9}}]


class Dataset:
    """What the package uses of a Ray Data dataset."""

    def __init__(self, blocks: Sequence[Block], stages: tuple[Callable[[Block], Block], ...] = ()) -> None:
        self.blocks, self.stages = blocks, stages

    def map_batches(self, function: Any, *, fn_constructor_args: Sequence[Any] = (), **_: Any) -> Dataset:
        stage = function(*fn_constructor_args) if inspect.isclass(function) else function
        return Dataset(self.blocks, (*self.stages, stage))

    def iter_batches(self, **_: Any) -> Iterator[Block]:
        for block in self.blocks:
            for stage in self.stages:
                block = stage(block)
            yield block


def numbers(count: int, **_: Any) -> Dataset:
    """As ray.data.range."""
    return Dataset([{"id": np.array([number])} for number in range(count)])


def from_blocks(blocks: list[pd.DataFrame]) -> Dataset:
    return Dataset(blocks)


def run_trials(comparison: ComparisonJob, tracker: TrialTracker, folder: Run, max_concurrent: int) -> None:
    """As tune_run.run_trials, in this process."""
    for job in comparison.jobs:
        config, run = job.trial.config, Run(job.run)
        entry = TrialEntry(slug=job.trial.slug, name=job.trial.name, seed=config.seed, run=job.run)
        tracker.take(TuneEvent(entry, "running", job.ended))
        try:
            checks.lock_run(job.run, config, resume=run.exists(), same_length=True)
            try:
                launch.record_run(config, job.prepared, run, workers="1", gpu=False)
                launch.train_local(config, job.prepared, run, lambda event: None)
            finally:
                run.unlock()
        except UserError as error:
            tracker.take(TrialFailure(job.trial.slug, str(error)))
        tracker.take(TuneEvent(entry, "complete" if run.finished() else "failed", job.ended))


def no_cache(prepared: Any, *_: Any, **__: Any) -> ImageCache:
    return ImageCache(prepared, [], 1.0, np.empty(0), np.empty(0))


def replacements() -> list[tuple[Any, str, Any]]:
    """Module, name and new value of each."""
    return [
        (ray, "cluster_resources", lambda: {"CPU": 2.0}),
        (ray, "nodes", lambda: NODES),
        (ray, "put", lambda value: value),
        (ray, "get", lambda value, **_: value),
        (ray.data, "from_blocks", from_blocks),
        (ray.data, "range", numbers),
        (cluster, "ensure_ray", lambda workers=0: None),
        (cluster, "configure_ray_data", lambda: None),
        (classify, "configure_ray_data", lambda: None),
        (classify.atexit, "register", lambda *_: None),  # of the replica, which would end this process
        (resources, "preflight", lambda *_: "in this process"),
        (compare, "preflight", lambda *_: "in this process"),
        (compare, "cache_images", no_cache),
        (compare, "open_mailbox", lambda: None),
        (compare, "run_trials", run_trials),
    ]


def replace_ray() -> None:
    """For the rest of this process."""
    for module, name, value in replacements():
        setattr(module, name, value)
