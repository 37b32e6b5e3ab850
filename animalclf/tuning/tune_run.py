"""Ray Tune runs the trials: which one when, and which is stopped early.

Tune keeps nothing. A schedule or a searcher that must know the past of a resumed comparison gets it from the run folders: an ended trial only
replays its history.
"""

from __future__ import annotations

import importlib
import logging
import os
import queue
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import ray
from ray import tune

from animalclf.errors import UserError
from animalclf.rows import TrialEntry
from animalclf.runs import STALE_SECONDS, Run
from animalclf.tuning.comparison_dir import TrialTracker, TuneEvent
from animalclf.tuning.spec import ComparisonSpec, monitored_metric
from animalclf.tuning.trials import ComparisonJob, run_trial

HALVING = 3  # ASHA: one of three trials passes a rung, and the next rung is three times as far
STOP_SECONDS = 30.0  # that a trial has to end its training in order
POLL_SECONDS = 0.3


class StopTrials(tune.Callback):
    """Passes on what Tune does with the trials, ends the trainings of those that it stops, and stops Tune on request.

    Only a trial's own process can end its training in order. Where the process is merely killed its workers die too, but their place in the cluster
    stays taken until the end of the job.
    """

    def __init__(self, comparison: ComparisonJob) -> None:
        self.comparison, self.events, self.stop = comparison, queue.SimpleQueue[TuneEvent](), threading.Event()
        self.running: set[str] = set()  # slugs

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes a copy of its settings, for a way of resuming that is not ours

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self.stop.is_set():
            self._end(*self.running)
            raise InterruptedError("stopped")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.add(self.comparison.job(trial.config).trial.slug)
        self._put(trial, "running")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # Before Tune ends the trial's process.
        job = self.comparison.job(trial.config)
        if not Run(job.run).finished():
            self._end(job.trial.slug)
        self.running.discard(job.trial.slug)
        self._put(trial, "complete")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(self.comparison.job(trial.config).trial.slug)
        self._put(trial, "failed")

    def _end(self, *slugs: str) -> None:
        mailbox, until = self.comparison.mailbox, time.monotonic() + STOP_SECONDS
        ray.get([mailbox.say.remote(f"stop {slug}") for slug in slugs])
        while not all(ray.get([mailbox.said.remote(f"ended {slug}") for slug in slugs])) and time.monotonic() < until:
            time.sleep(0.2)
        self.running.difference_update(slugs)

    def _put(self, trial: Any, state: Literal["running", "complete", "failed"]) -> None:
        job = self.comparison.job(trial.config)
        values = dict(trial.config) if self.comparison.spec.searching else None
        entry = TrialEntry(
            slug=job.trial.slug, name=job.trial.name, seed=job.trial.config.seed, run=job.run, values=values
        )
        self.events.put(TuneEvent(entry, state, job.ended))


def run_trials(comparison: ComparisonJob, tracker: TrialTracker, folder: Run, max_concurrent: int) -> None:
    """Let Tune run the trials in a thread, and follow it in this one, which Ctrl-C reaches. `folder` is the comparison's, whose lock is renewed."""
    callback, failure = StopTrials(comparison), queue.SimpleQueue[BaseException]()
    with _quiet_tune() as scratch:
        tuner = _tuner(comparison, tracker, callback, scratch, max_concurrent)

        def fit() -> None:
            try:
                tuner.fit()
            except Exception as error:
                failure.put(error)
                if not callback.stop.is_set():
                    raise

        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        try:
            renewed = time.monotonic()
            while thread.is_alive():
                thread.join(timeout=POLL_SECONDS)
                _take_events(comparison, callback, tracker)
                if time.monotonic() - renewed > STALE_SECONDS / 4:
                    renewed = time.monotonic()
                    folder.lock()
        except BaseException:
            callback.stop.set()
            thread.join(timeout=60)
            raise
        finally:
            _take_events(comparison, callback, tracker)
        if not failure.empty():
            raise failure.get()


def _tuner(
    comparison: ComparisonJob, tracker: TrialTracker, callback: StopTrials, scratch: str, max_concurrent: int
) -> tune.Tuner:
    spec = comparison.spec
    # The node of this process: trials live and die with it, and take nothing that training needs.
    this_node = {f"node:{ray.util.get_node_ip_address()}": 0.001}
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, comparison=comparison), this_node),
        param_space={} if spec.searching else {"trial": tune.grid_search(list(range(len(comparison.jobs))))},
        tune_config=tune.TuneConfig(
            search_alg=_searcher(spec, tracker) if spec.searching else None,
            scheduler=_scheduler(spec),
            num_samples=spec.samples if spec.searching else 1,
            max_concurrent_trials=max_concurrent,
            reuse_actors=spec.schedule == "none",  # a stopped trial's process must end, and with it all that it started
        ),
        run_config=tune.RunConfig(name="comparison", storage_path=scratch, verbose=0, callbacks=[callback]),
    )


def _take_events(comparison: ComparisonJob, callback: StopTrials, tracker: TrialTracker) -> None:
    """Give the tracker what happened. Tune's events are fetched first and handled last: why a trial failed is posted before Tune knows of it."""
    events = []
    while not callback.events.empty():
        events.append(callback.events.get())
    started = [event for event in events if event.state == "running"]
    progress = ray.get(comparison.mailbox.take.remote())
    for event in (*started, *progress, *(event for event in events if event.state != "running")):
        tracker.take(event)


def _scheduler(spec: ComparisonSpec) -> Any:
    from ray.tune.schedulers import ASHAScheduler

    if spec.schedule == "none":
        return None
    epochs, (metric, mode) = spec.trials[0].config.train.epochs, monitored_metric(spec.trials[0].config)
    # max_t beyond the last epoch: Tune would stop a trial there before its evaluation.
    grace = max(1, epochs // HALVING**2)
    return ASHAScheduler(
        time_attr="epoch", metric=metric, mode=mode, max_t=epochs + 1, grace_period=grace, reduction_factor=HALVING
    )


def check_searcher(spec: ComparisonSpec) -> None:
    """Raises UserError where the searcher is not installed."""
    if spec.searching:
        try:
            importlib.import_module("optuna")
        except ImportError as error:
            raise UserError(
                "searcher optuna: is not installed; pip install 'animalclf[optuna]', or use searcher random"
            ) from error


def _searcher(spec: ComparisonSpec, tracker: TrialTracker) -> Any:
    from ray.tune.search.optuna import OptunaSearch

    optuna = importlib.import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {}
    for search_range in spec.search:
        if search_range.choices:
            space[search_range.key] = tune.choice(list(search_range.choices))
        elif search_range.integer:
            space[search_range.key] = (tune.lograndint if search_range.log else tune.randint)(
                int(search_range.low), int(search_range.high) + 1
            )
        else:
            space[search_range.key] = (tune.loguniform if search_range.log else tune.uniform)(
                search_range.low, search_range.high
            )
    metric, mode = monitored_metric(spec.trials[0].config)
    known = [entry.values for entry in tracker.entries.values() if entry.values]
    return OptunaSearch(
        space, metric=metric, mode=mode, points_to_evaluate=known or None, seed=spec.trials[0].config.seed + len(known)
    )


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
