"""One trial of a comparison in its own process. The process needs few resources: it starts an ordinary training, whose
workers do the work."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import tune

from animalclf import cluster
from animalclf.config import Config
from animalclf.data.prepared_set import Prepared
from animalclf.data.ray_loader import ImageCache
from animalclf.errors import UserError
from animalclf.rows import EpochEnd, EpochRow, ProgressEvent, TrialFailure, TrialProgress
from animalclf.runs import Run
from animalclf.training import checks, launch, ray_trainer, reused_worker
from animalclf.training.best_epoch import is_done
from animalclf.training.resources import Workers
from animalclf.training.stop import Stopped, Switch
from animalclf.training.task import Start
from animalclf.tuning.spec import ComparisonSpec, Trial
from animalclf.utils import storage

STOP_POLL_SECONDS = 0.5  # between two checks for a request to stop


@dataclass(frozen=True)
class TrialJob:
    """A trial with its run folder and its images."""

    trial: Trial
    run: str
    """URL of the run folder; of the folder of all runs while a searcher proposes the trials."""
    prepared: Prepared
    cache: ImageCache | None
    """None if the trial has ended."""
    ended: bool
    """Whether it ended in an earlier start, and only replays its history."""


@dataclass(frozen=True)
class ComparisonJob:
    """What the processes of all trials share."""

    jobs: tuple[TrialJob, ...]
    spec: ComparisonSpec
    workers: int
    use_gpu: bool
    mailbox: Any  # actor handle of progress.Mailbox
    command: str
    first_worker: Any = None
    """Actor handle of a worker for the first trial, see `reused_worker.start_worker`."""

    def job(self, params: Mapping[str, Any]) -> TrialJob:
        """The job of a trial from Tune's parameters: its number, or (searching) the values to try."""
        if not self.spec.searching:
            return self.jobs[params["trial"]]
        trial, base = self.spec.trial(params), self.jobs[0]
        return replace(base, trial=trial, run=storage.join(base.run, trial.slug))


def run_trial(params: Mapping[str, Any], comparison: ComparisonJob) -> None:
    """Tune's function of a trial: train, report each finished epoch to Tune, and post all progress to the mailbox. A
    trial that ended earlier only reports its history. `params`: see ComparisonJob.job."""
    cluster.ensure_ray()
    cluster.silence_ray()
    job = comparison.job(params)
    run, slug = Run(job.run), job.trial.slug
    switch, done = Switch(), threading.Event()
    threading.Thread(target=_stop_on_request, args=(comparison.mailbox, slug, switch, done), daemon=True).start()
    try:
        if job.ended or run.finished():
            _report(run.metrics())
        else:
            _train(job, comparison, run, switch)
    except Stopped:
        return
    except Exception as error:
        ray.get(comparison.mailbox.post.remote(TrialFailure(slug, failure_reason(error))))
        raise
    finally:
        done.set()


def _train(job: TrialJob, comparison: ComparisonJob, run: Run, switch: Switch) -> None:
    """Train or continue the trial. The last epoch is reported after the final evaluation, because a schedule may stop a
    trial as soon as its last epoch is reported."""
    config = job.trial.config
    history = [] if config.train.folds else run.metrics()  # with folds there is nothing to report before the end

    def on_event(event: ProgressEvent) -> None:
        comparison.mailbox.post.remote(TrialProgress(job.trial.slug, event))
        if isinstance(event, EpochEnd) and not config.train.folds:
            history.append(event.row)
            if not _is_last(history, config):
                _report([event.row])

    _report(history[:-1] if _is_last(history, config) else history)
    checks.lock_run(job.run, config, resume=run.exists(), same_length=True)
    try:
        launch.record_run(
            config,
            job.prepared,
            run,
            workers=str(comparison.workers),
            gpu=comparison.use_gpu,
            command=comparison.command,
        )
        if comparison.first_worker is not None and job is comparison.jobs[0]:
            reused_worker.adopt(comparison.first_worker)
        workers = Workers.fixed(comparison.workers, comparison.use_gpu, reused=True)
        ray_trainer.train_on_ray(config, job.prepared, run, workers, on_event, Start(job.cache), switch)
    finally:
        run.unlock()
    _report(run.metrics()[-1:])


def _report(rows: Sequence[EpochRow]) -> None:
    for row in rows:
        tune.report(row.to_dict())


def _stop_on_request(mailbox: Any, slug: str, switch: Switch, done: threading.Event) -> None:
    """In a thread of the trial's process, whose main thread may wait for Tune: stop the training on the request of
    `StopTrials`, and confirm its end. Until then tell `mailbox` its workers."""
    while not done.wait(STOP_POLL_SECONDS):
        if ray.get(mailbox.is_to_stop.remote(slug, switch.workers())):
            switch.stop()
            switch.wait()
            break
    ray.get(mailbox.trial_ended.remote(slug))


def _is_last(history: Sequence[EpochRow], config: Config) -> bool:
    return bool(history) and is_done(history, config)


def failure_reason(error: BaseException) -> str:
    """Why a trial failed, in one line: a UserError's text, or the last line of what the worker raised."""
    if ray_trainer.is_out_of_memory(error):
        return ray_trainer.OUT_OF_MEMORY
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = failures[min(failures)]
    error = getattr(error, "controller_failure", None) or getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    names_error = isinstance(error, UserError) or "Error" in text.partition(":")[0]
    return text if names_error else f"{type(error).__name__}: {text}"
