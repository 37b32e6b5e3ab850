"""A rehearsal: the training itself on a few of its images, in the process that measure.py starts as a command starts.
It runs on a Ray of its own, with the workers that the training will have; with --local, on GPUs and on the nodes of a
cluster in its own process."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace

import psutil

from animalclf.config import Config
from animalclf.data.prepared_set import Prepared
from animalclf.data.sampler import steps_of
from animalclf.planning import timeline as arithmetic
from animalclf.planning.sample import SampleAnswer, SampleTask, write_sample
from animalclf.planning.timeline import SampleSize, Timeline
from animalclf.rows import Measured
from animalclf.runs import Run
from animalclf.utils import storage

EPOCHS, FEATURE_EPOCHS = 2, 8  # of the sample, of images and of the features of a frozen base: the first warms up
WATCH_SECONDS = 0.2  # between two looks at the memory of the workers
WORKER = "RayTrainWorker"  # in the command line of Ray's training workers


def rehearse(task: SampleTask, folder: str, started: float) -> SampleAnswer:
    """Prepare the sample in `folder`, and train on it. `started`: this process, in seconds since 1970. Raises UserError
    as the training does."""
    from animalclf.cluster import ensure_ray, leave_ray

    timeline, cpus = Timeline(started), 0
    timeline.end("start")
    if task.starts_ray and not (task.sample.is_prepared and task.trains_on_ray):  # else the training starts it
        ensure_ray(task.workers)
        cpus = max(os.cpu_count() or 1, task.workers + 1)
        timeline.end("Ray")
    prepared, prepare_seconds = write_sample(task.sample, storage.join(folder, "prepared"), cpus)
    run = Run(storage.join(folder, "run"))
    timeline.end("prepare")
    with WorkerMemory(task.trains_on_ray) as memory:
        _train(task, prepared, run, timeline)
    timeline.end("trained")
    leave_ray()
    timeline.end("end")
    measured, cached = _measured(task, prepared, run, timeline)
    return SampleAnswer(
        replace(measured, worker_bytes=memory.peak or measured.worker_bytes), prepare_seconds, cached, ended=time.time()
    )


def sample_config(task: SampleTask) -> Config:
    """The configuration of the training on the sample: its steps, without what decides how many there are."""
    config = task.config
    epochs = FEATURE_EPOCHS if task.on_features else EPOCHS
    train = replace(
        config.train,
        epochs=1 if config.train.heads else epochs,
        batch_size=task.batch_size,
        folds=0,
        select_fraction=0.0,
        patience=0,
        unfreeze_every=0,
        cache_features=True,
        profile=False,
        compile=False,
        compile_from=0,
    )
    data, optim = replace(config.data, limit=0), replace(config.optim, warmup_epochs=0)
    return replace(config, data=data, train=train, optim=optim)


def _train(task: SampleTask, prepared: Prepared, run: Run, timeline: Timeline) -> None:
    from animalclf.training.launch import start_training
    from animalclf.training.resources import Workers

    workers = Workers.fixed(task.workers if task.trains_on_ray else 1)
    start_training(sample_config(task), prepared, run, workers, task.cpu, not task.trains_on_ray, timeline.take)


def _measured(task: SampleTask, prepared: Prepared, run: Run, timeline: Timeline) -> tuple[Measured, bool]:
    """The measurements, and whether the prepared set of all images has the features of the base."""
    from animalclf.planning import head_fit, network

    rows, config = run.metrics(), sample_config(task)
    train, val = (len(prepared.rows(split)) for split in ("train", "val"))
    size = SampleSize(train, val, steps_of(train, config.train.batch_size), rows[0].workers)
    measured = arithmetic.of_epochs(rows, size)
    measured = replace(measured, feature_seconds=arithmetic.feature_seconds(timeline) * size.workers)
    fixed = arithmetic.fixed_seconds(timeline, rows, size, measured)
    measured = network.measure(replace(measured, fixed=fixed), task, prepared, run)
    if config.train.heads:
        measured = head_fit.measure(measured, task, prepared, run)
    return measured, task.on_features and network.has_cached_features(task, measured.device)


class WorkerMemory:
    """The peak memory of a training worker within the block, in bytes: `peak`, 0 without Ray."""

    def __init__(self, on_ray: bool) -> None:
        self.peak, self.on_ray = 0, on_ray
        self.ended, self.thread = threading.Event(), threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> WorkerMemory:
        if self.on_ray:
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()

    def _watch(self) -> None:
        while not self.ended.wait(WATCH_SECONDS):
            for process in psutil.Process().children(recursive=True):
                try:
                    if WORKER in " ".join(process.cmdline()):
                        self.peak = max(self.peak, process.memory_info().rss)
                except psutil.Error:  # one that has just ended
                    continue
