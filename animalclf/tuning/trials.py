"""The trials on Ray Tune: each is a cheap driver process that launches an ordinary Ray Train run, whose workers take the resources.

Tune decides which trial runs when, and which is stopped; it keeps nothing. A schedule or a searcher that must know the past of a resumed
comparison gets it from the run folders: an ended trial only replays its history.
"""

from __future__ import annotations

import importlib
import logging
import os
import queue
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import ray
from ray import tune

from animalclf import cluster
from animalclf.config import Config
from animalclf.data.prepared_set import Prepared
from animalclf.data.ray_loader import ImageCache
from animalclf.errors import UserError
from animalclf.rows import EpochEnd, EpochRow, ProgressEvent, TrialEntry, TrialFailure, TrialProgress
from animalclf.runs import STALE_SECONDS, Run
from animalclf.training import driver
from animalclf.training.resources import Workers
from animalclf.training.stop import Stopped, Switch
from animalclf.tuning.comparison_dir import Board, TuneEvent
from animalclf.tuning.spec import ComparisonSpec, Trial, monitored_metric
from animalclf.utils import storage

HALVING = 3  # of the trials that reach a rung of ASHA, one in so many goes on; the next rung is so many times as far
TO_END = 30.0  # seconds that a trial has to end its training in order


@dataclass(frozen=True)
class Job:
    """What a trial's process needs."""

    trial: Trial
    run: str
    prepared: Prepared
    store: ImageCache | None  # None where nothing is left to train
    ended: bool  # nothing left to train: only its history counts


@dataclass(frozen=True)
class Shared:
    """What all trials' processes have in common."""

    jobs: tuple[Job, ...]
    spec: ComparisonSpec
    workers: int
    use_gpu: bool
    mailbox: Any  # actor handle of mailbox.Mailbox
    command: str

    def job(self, params: Mapping[str, Any]) -> Job:
        """The job of a trial as Tune describes it: by its number, or (searching) by the values to try."""
        if not self.spec.searching:
            return self.jobs[params["trial"]]
        trial, base = self.spec.trial(params), self.jobs[0]
        return replace(base, trial=trial, run=storage.join(base.run, trial.slug))


def drive(params: Mapping[str, Any], shared: Shared) -> None:
    """A trial in its own process: an ordinary training on Ray, each finished epoch reported to Tune, and everything to the mailbox."""
    cluster.ensure_ray()
    cluster.quiet()
    job = shared.job(params)
    config, run, slug = job.trial.config, Run(job.run), job.trial.slug
    ended = job.ended or run.finished()
    history = run.metrics()

    def report(rows: Sequence[EpochRow]) -> None:
        for row in rows:
            tune.report(row.to_dict())

    def show(event: ProgressEvent) -> None:
        shared.mailbox.post.remote(TrialProgress(slug, event))
        if isinstance(event, EpochEnd):
            history.append(event.row)
            if not _last(history, config):
                report([event.row])

    switch, done = Switch(), threading.Event()
    threading.Thread(target=_obey, args=(shared.mailbox, slug, switch, done), daemon=True).start()
    try:
        report(history if ended else history[:-1] if _last(history, config) else history)
        if ended:
            return
        driver.claim(job.run, config, resume=run.exists(), same_length=True)
        try:
            facts = {"workers": shared.workers, "gpu": shared.use_gpu, "command": shared.command}
            driver.record(config, job.prepared, run, **facts)
            driver.train_on_ray(config, job.prepared, run, Workers.fixed(shared.workers, shared.use_gpu), show, job.store, switch)
        except Stopped:
            return
        finally:
            run.unlock()
        report(history[-1:])  # only now: a schedule that stops a trial at its last epoch must find it evaluated
    except Exception as error:
        ray.get(shared.mailbox.post.remote(TrialFailure(slug, reason(error))))
        raise
    finally:
        done.set()


def _obey(mailbox: Any, slug: str, switch: Switch, done: threading.Event) -> None:
    """In a thread of the trial's process: end its training where `_Watch` says so, and answer. (The main thread may be waiting for Tune.)"""
    while not done.wait(0.5):
        if ray.get(mailbox.said.remote(f"stop {slug}")):
            switch.stop()
            switch.wait()
            break
    ray.get(mailbox.say.remote(f"ended {slug}"))


def _last(history: Sequence[EpochRow], config: Config) -> bool:
    from animalclf.training.train_state import is_done

    return bool(history) and is_done(history, config)


def reason(error: BaseException) -> str:
    """Why a trial failed, in one line: a UserError's text, or the last line of what the worker raised."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = failures[min(failures)]
    error = getattr(error, "controller_failure", None) or getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    name = type(error).__name__
    return text if isinstance(error, UserError) or "Error" in text.partition(":")[0] else f"{name}: {text}"


class _Watch(tune.Callback):
    """Tells the main thread what Tune does, ends the Train runs of trials that are stopped, and stops Tune when the main thread asks for it.

    Only a trial itself can end its Train run in order. Where its process is merely killed, its workers die too, but their place in the cluster stays
    taken until the end of the job.
    """

    def __init__(self, shared: Shared) -> None:
        self.shared, self.events, self.stop = shared, queue.SimpleQueue[TuneEvent](), threading.Event()
        self.running: set[str] = set()  # slugs

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes a copy of its settings, for a way of resuming that is not ours

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self.stop.is_set():
            self._end(*self.running)
            raise InterruptedError("stopped")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.add(self.shared.job(trial.config).trial.slug)
        self._tell(trial, "running")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # Before Tune ends the trial's process.
        job = self.shared.job(trial.config)
        if not Run(job.run).finished():
            self._end(job.trial.slug)
        self.running.discard(job.trial.slug)
        self._tell(trial, "complete")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(self.shared.job(trial.config).trial.slug)
        self._tell(trial, "failed")

    def _end(self, *slugs: str) -> None:
        mailbox, until = self.shared.mailbox, time.monotonic() + TO_END
        ray.get([mailbox.say.remote(f"stop {slug}") for slug in slugs])
        while not all(ray.get([mailbox.said.remote(f"ended {slug}") for slug in slugs])) and time.monotonic() < until:
            time.sleep(0.2)
        self.running.difference_update(slugs)

    def _tell(self, trial: Any, state: Literal["running", "complete", "failed"]) -> None:
        job = self.shared.job(trial.config)
        values = dict(trial.config) if self.shared.spec.searching else None
        entry = TrialEntry(slug=job.trial.slug, name=job.trial.name, seed=job.trial.config.seed, run=job.run, values=values)
        self.events.put(TuneEvent(entry, state, job.ended))


def run_trials(shared: Shared, board: Board, folder: Run, at_once: int) -> None:
    """Let Tune run the jobs, and follow it in this thread, which Ctrl-C reaches."""
    watch, failure = _Watch(shared), queue.SimpleQueue[BaseException]()
    with _quiet_tune() as scratch:
        # The node of this process: trials live and die with it, and take nothing that training needs.
        here = {f"node:{ray.util.get_node_ip_address()}": 0.001}
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(drive, shared=shared), here),
            param_space={} if shared.spec.searching else {"trial": tune.grid_search(list(range(len(shared.jobs))))},
            tune_config=tune.TuneConfig(
                search_alg=_searcher(shared.spec, board) if shared.spec.searching else None,
                scheduler=_scheduler(shared.spec),
                num_samples=shared.spec.samples if shared.spec.searching else 1,
                max_concurrent_trials=at_once,
                reuse_actors=shared.spec.schedule == "none",  # a stopped trial's process must end, and with it all that it started
            ),
            run_config=tune.RunConfig(name="comparison", storage_path=scratch, verbose=0, callbacks=[watch]),
        )

        def fit() -> None:
            try:
                tuner.fit()
            except Exception as error:
                failure.put(error)
                if not watch.stop.is_set():
                    raise

        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        try:
            renewed = time.monotonic()
            while thread.is_alive():
                thread.join(timeout=0.3)
                _follow(shared, watch, board)
                if time.monotonic() - renewed > STALE_SECONDS / 4:
                    renewed = time.monotonic()
                    folder.lock()
        except BaseException:
            watch.stop.set()
            thread.join(timeout=60)
            raise
        finally:
            _follow(shared, watch, board)
        if not failure.empty():
            raise failure.get()


def _follow(shared: Shared, watch: _Watch, board: Board) -> None:
    # Tune's events first taken, last told: why a trial failed was posted before Tune knew that it failed.
    told = []
    while not watch.events.empty():
        told.append(watch.events.get())
    started = [event for event in told if event.state == "running"]
    for event in (*started, *ray.get(shared.mailbox.take.remote()), *(event for event in told if event.state != "running")):
        board.take(event)


def _scheduler(spec: ComparisonSpec) -> Any:
    from ray.tune.schedulers import ASHAScheduler

    if spec.schedule == "none":
        return None
    epochs, (metric, mode) = spec.trials[0].config.train.epochs, monitored_metric(spec.trials[0].config)
    # max_t beyond the last epoch: Tune would stop a trial there before its evaluation.
    grace = max(1, epochs // HALVING**2)
    return ASHAScheduler(time_attr="epoch", metric=metric, mode=mode, max_t=epochs + 1, grace_period=grace, reduction_factor=HALVING)


def check_searcher(spec: ComparisonSpec) -> None:
    """Raises UserError where the plan's searcher is not installed."""
    if spec.searching:
        try:
            importlib.import_module("optuna")
        except ImportError as error:
            raise UserError("searcher optuna: is not installed; pip install 'animalclf[optuna]', or use searcher random") from error


def _searcher(spec: ComparisonSpec, board: Board) -> Any:
    from ray.tune.search.optuna import OptunaSearch

    optuna = importlib.import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {}
    for item in spec.search:
        if item.choices:
            space[item.key] = tune.choice(list(item.choices))
        elif item.integer:
            space[item.key] = (tune.lograndint if item.log else tune.randint)(int(item.low), int(item.high) + 1)
        else:
            space[item.key] = (tune.loguniform if item.log else tune.uniform)(item.low, item.high)
    metric, mode = monitored_metric(spec.trials[0].config)
    known = [entry.values for entry in board.entries.values() if entry.values]
    return OptunaSearch(space, metric=metric, mode=mode, points_to_evaluate=known or None, seed=spec.trials[0].config.seed + len(known))


@contextmanager
def _quiet_tune() -> Iterator[str]:
    """Tune without its screen output and result files; gives it a folder for the rest, gone afterwards."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_FORCE_TRIAL_CLEANUP_S", "10")
    os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "3600")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new reporter prints to the screen however quiet it is told to be
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # a failed trial is told by us, in one line
    try:
        with tempfile.TemporaryDirectory(prefix="animalclf-compare-", ignore_cleanup_errors=True) as scratch:
            yield scratch
    finally:
        logger.setLevel(level)
