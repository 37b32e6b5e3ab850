"""Ray Tune runs the trials: it decides when each starts and which are stopped early.

Tune stores nothing. On a resume, a schedule or a searcher learns the past from the run folders: a trial that has ended
only replays its history.
"""

from __future__ import annotations

import importlib
import logging
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
from animalclf.raycompat.recorded import trials_without_credentials
from animalclf.rows import TrialEntry
from animalclf.runs import Run
from animalclf.training.stop import end_workers
from animalclf.tuning.comparison_dir import TrialTracker, TuneEvent
from animalclf.tuning.spec import REDUCTION_FACTOR, ComparisonSpec, grace_epochs, monitored_metric
from animalclf.tuning.trials import ComparisonJob, run_trial

STOP_SECONDS = 30.0  # for a trial to end its training cleanly
POLL_SECONDS = 0.3  # between two requests for events


class StopTrials(tune.Callback):
    """Passes on the events of Tune, ends the trainings of the trials that it stops, and stops Tune on request.

    Only a trial's own process can end its training cleanly. If the process is killed, its workers die too, but their
    resources stay reserved until the end of the job, unless `on_trial_error` releases them.
    """

    def __init__(self, comparison: ComparisonJob) -> None:
        self.comparison, self.events, self.stop = comparison, queue.SimpleQueue[TuneEvent](), threading.Event()
        self.running: set[str] = set()  # slugs

    def __getstate__(self) -> dict[str, object]:
        return {}  # Tune pickles its settings for its own way of resuming, which is not used here

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self.stop.is_set():
            self._end_trainings(self.running)
            raise InterruptedError("stopped")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.add(self.comparison.job(trial.config).trial.slug)
        self._put(trial, "running")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called before Tune ends the trial's process."""
        job = self.comparison.job(trial.config)
        if not Run(job.run).finished():
            self._end_trainings({job.trial.slug})
        self.running.discard(job.trial.slug)
        self._put(trial, "complete")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        slug = self.comparison.job(trial.config).trial.slug
        end_workers(ray.get(self.comparison.mailbox.workers_of.remote(slug)))
        self.running.discard(slug)
        self._put(trial, "failed")

    def _end_trainings(self, slugs: set[str]) -> None:
        """End the trainings of these trials, and wait for that at most STOP_SECONDS."""
        mailbox, deadline = self.comparison.mailbox, time.monotonic() + STOP_SECONDS
        ray.get(mailbox.stop_trials.remote(slugs))
        while not ray.get(mailbox.have_ended.remote(slugs)) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.running -= slugs

    def _put(self, trial: Any, state: Literal["running", "complete", "failed"]) -> None:
        job = self.comparison.job(trial.config)
        values = dict(trial.config) if self.comparison.spec.searching else None
        entry = TrialEntry(
            slug=job.trial.slug, name=job.trial.name, seed=job.trial.config.seed, run=job.run, values=values
        )
        self.events.put(TuneEvent(entry, state, job.ended))


def run_trials(comparison: ComparisonJob, tracker: TrialTracker, folder: Run, max_concurrent: int) -> None:
    """Let Tune run the trials in a thread, and follow it in this one, which Ctrl-C reaches. Ends when another
    process has taken the comparison folder `folder`."""
    callback, failure = StopTrials(comparison), queue.SimpleQueue[BaseException]()
    with _quiet_tune() as storage_path:
        tuner = _tuner(comparison, tracker, callback, storage_path, max_concurrent)

        def fit() -> None:
            try:
                with trials_without_credentials():
                    tuner.fit()
            except Exception as error:
                failure.put(error)
                if not callback.stop.is_set():
                    raise

        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(timeout=POLL_SECONDS)
                _pass_events(comparison, callback, tracker)
                folder.check_locked()
        except BaseException:
            callback.stop.set()
            thread.join(timeout=60)
            raise
        finally:
            _pass_events(comparison, callback, tracker)
        if not failure.empty():
            raise failure.get()


def _tuner(
    comparison: ComparisonJob, tracker: TrialTracker, callback: StopTrials, storage_path: str, max_concurrent: int
) -> tune.Tuner:
    spec = comparison.spec
    # Trials run on the node of this process, end with it, and reserve nothing that training needs.
    this_node = {f"node:{ray.util.get_node_ip_address()}": 0.001}
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, comparison=comparison), this_node),
        param_space={} if spec.searching else {"trial": tune.grid_search(list(range(len(comparison.jobs))))},
        tune_config=tune.TuneConfig(
            search_alg=_searcher(spec, tracker) if spec.searching else None,
            scheduler=_scheduler(spec),
            num_samples=spec.samples if spec.searching else 1,
            max_concurrent_trials=max_concurrent,
            reuse_actors=spec.schedule == "none",  # the process of a stopped trial must end with all that it started
        ),
        run_config=tune.RunConfig(name="comparison", storage_path=storage_path, verbose=0, callbacks=[callback]),
    )


def _pass_events(comparison: ComparisonJob, callback: StopTrials, tracker: TrialTracker) -> None:
    """Pass events of Tune and of the trials to the tracker: starts first, ends last. Tune's are fetched first, because
    the reason of a failure is posted before Tune notices it."""
    tune_events = []
    while not callback.events.empty():
        tune_events.append(callback.events.get())
    starts = [event for event in tune_events if event.state == "running"]
    ends = [event for event in tune_events if event.state != "running"]
    _, progress = ray.get(comparison.mailbox.take.remote())
    for event in (*starts, *progress, *ends):
        tracker.take(event)


def _scheduler(spec: ComparisonSpec) -> Any:
    from ray.tune.schedulers import ASHAScheduler

    if spec.schedule == "none":
        return None
    epochs, (metric, mode) = spec.trials[0].config.train.epochs, monitored_metric(spec.trials[0].config)
    # max_t is beyond the last epoch, where Tune would stop a trial before its evaluation.
    return ASHAScheduler(
        time_attr="epoch",
        metric=metric,
        mode=mode,
        max_t=epochs + 1,
        grace_period=grace_epochs(epochs),
        reduction_factor=REDUCTION_FACTOR,
    )


def check_searcher(spec: ComparisonSpec) -> None:
    """Raises UserError if the searcher is not installed."""
    if spec.searching:
        try:
            importlib.import_module("optuna")
        except ImportError as error:
            raise UserError(
                "searcher optuna: Optuna is not installed; pip install 'animalclf[optuna]', or use searcher random"
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
    tried_values = [entry.values for entry in tracker.entries.values() if entry.values]
    return OptunaSearch(
        space,
        metric=metric,
        mode=mode,
        points_to_evaluate=tried_values or None,
        seed=spec.trials[0].config.seed + len(tried_values),
    )


@contextmanager
def _quiet_tune() -> Iterator[str]:
    """Tune without its console output and result files. Yields a temporary folder for its other files."""
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # animalclf reports a failed trial itself, in one line
    try:
        with tempfile.TemporaryDirectory(prefix="animalclf-compare-", ignore_cleanup_errors=True) as folder:
            yield folder
    finally:
        logger.setLevel(level)
