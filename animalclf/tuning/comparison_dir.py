"""The comparison folder (local or s3://): the only module that knows its file names; the state of each trial.

comparison.yaml      the data and all trials, resolved
summary.json         the state of every trial, as `compare` returns it
trials/<slug>/       ordinary run folders
ensemble/<method>/   ensembles of the finished trials, as `inference.ensemble` writes them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.errors import UserError
from animalclf.inference.mixing import METHODS
from animalclf.rows import ComparedData, ComparisonSummary, EnsembleResult, TrialEntry, TrialFailure, TrialProgress
from animalclf.runs import Run
from animalclf.tuning.spec import ComparisonSpec, monitored_metric
from animalclf.utils import storage
from animalclf.utils.text import shown
from animalclf.utils.yaml_text import dump_yaml

Show = Callable[[TrialProgress | TrialEntry], None]
PLAN, SUMMARY, TRIALS, ENSEMBLES = "comparison.yaml", "summary.json", "trials", "ensemble"
ENDED = ("finished", "stopped")  # states that a resume does not change


@dataclass(frozen=True)
class TuneEvent:
    """A change of a trial in Tune."""

    entry: TrialEntry
    """The trial at its start: new if a searcher proposes it."""
    state: Literal["running", "complete", "failed"]
    ended: bool
    """Whether the trial ended in an earlier start, and only replays its history."""


@dataclass(frozen=True)
class StoredComparison:
    """What an earlier start wrote into a comparison folder."""

    data: ComparedData
    planned: dict[str, Mapping[str, object]]
    """The trials in comparison.yaml, by slug."""
    entries: list[TrialEntry]
    """The trials in summary.json."""


@dataclass(frozen=True)
class Comparison:
    """The content of a comparison folder: the state of every trial, and the ensembles of the finished ones."""

    trials: list[TrialEntry]
    ensembles: list[EnsembleResult]


def read_comparison(root: str) -> Comparison | None:
    """The comparison in the folder `root`, also after the folder was moved; None if there is none."""
    root = storage.absolute(root)
    url = storage.join(root, SUMMARY)
    if not storage.exists(url):
        return None
    summary = storage.read_json(url)
    trials = [TrialEntry.from_dict(item, url) for item in _trials(summary, url)]
    old_root = f"{summary.get('comparison', root)}/"

    def current(url: str) -> str:
        return storage.join(root, url.removeprefix(old_root)) if url.startswith(old_root) else url

    trials = [replace(entry, run=current(entry.run)) for entry in trials]
    results = [Run(storage.join(root, ENSEMBLES, method)) for method in METHODS]
    ensembles = [run.ensemble_result() for run in results if run.finished()]
    return Comparison(
        trials,
        [
            replace(ensemble, run=current(ensemble.run), members=[current(url) for url in ensemble.members])
            for ensemble in ensembles
        ],
    )


def open_folder(out: str, resume: bool) -> StoredComparison | None:
    """The comparison that `out` already contains; None for a new one. Raises UserError for an existing one without
    `resume`, for `resume` without one, and for a file."""
    if storage.is_file(out):
        raise UserError(f"{out}: is a file; choose another --out")
    if not storage.exists(storage.join(out, PLAN)):
        if resume:
            raise UserError(f"{out}: no comparison to resume ({PLAN} is missing); start it without --resume")
        if Run(out).exists():
            raise UserError(f"{out}: is the folder of a single run; choose another --out")
        return None
    if not resume:
        raise UserError(
            f"{out}: already contains a comparison; continue it or add trials with --resume, or choose another --out"
        )
    plan_url, summary_url = storage.join(out, PLAN), storage.join(out, SUMMARY)
    plan = configuration.read(plan_url, "comparison")
    summary = storage.read_json(summary_url) if storage.exists(summary_url) else {"trials": []}
    entries = [TrialEntry.from_dict(item, summary_url) for item in _trials(summary, summary_url)]
    planned = {item["slug"]: item for item in _trials(plan, plan_url)}
    return StoredComparison(ComparedData.from_dict(plan.get("data", {}), plan_url), planned, entries)


def _trials(content: object, url: str) -> list[Mapping[str, Any]]:
    """The list `trials` of a comparison's file. Raises UserError for other content, and for a slug that is no name of
    a folder: a path could lead out of the comparison."""
    trials = content.get("trials") if isinstance(content, Mapping) else None
    if not isinstance(trials, list) or not all(isinstance(item, Mapping) for item in trials):
        raise UserError(f"{url}: has no list of trials; {storage.RESTORE}")
    for slug in (item.get("slug") for item in trials):
        if not isinstance(slug, str) or slug in ("", ".", "..") or set(slug) & {"/", "\\", "\0"}:
            raise UserError(f"{url}: {shown(slug)} is not the slug of a trial; {storage.RESTORE}")
    return trials


def check_same_data(out: str, stored: StoredComparison | None, data: ComparedData) -> None:
    """Raises UserError if the comparison in `out` has other images."""
    if not stored:
        return
    old, new = stored.data.to_dict(), data.to_dict()
    counts = ("classes", "train", "val", "test")
    changes = [f"{key}: {old[key]} -> {new[key]}" for key in counts if old[key] != new[key]]
    if not changes and stored.data.listing_hash != data.listing_hash:
        changes = ["other files, labels or splits"]
    for size, prepared in data.prepared.items():
        fingerprint = stored.data.prepared.get(size, prepared)["fingerprint"]
        if not changes and fingerprint != prepared["fingerprint"]:
            changes = [f"fingerprint at {size}: {fingerprint[:12]} -> {prepared['fingerprint'][:12]}"]
    if changes:
        raise UserError(
            f"{out}: compares on other images ({stored.data.source}) than {data.source}: {'; '.join(changes)}; "
            "resume with the same data, or choose another --out"
        )


def known_trials(spec: ComparisonSpec, out: str, stored: StoredComparison | None) -> dict[str, TrialEntry]:
    """The state of each trial of an earlier start and of the spec, by slug. A trial of the spec whose run folder is
    missing waits. Raises UserError if the run folder of a trial has another configuration."""
    stored_entries = stored.entries if stored else []
    # The folder may have been moved, so the URLs of the runs are new.
    entries = {entry.slug: replace(entry, run=storage.join(out, TRIALS, entry.slug)) for entry in stored_entries}
    for trial in () if spec.searching else spec.trials:
        run = Run(storage.join(out, TRIALS, trial.slug))
        if run.exists():
            changed = configuration.differences(run.config(), trial.config)
            if changed:
                raise UserError(
                    f"{run.root}: has another configuration ({'; '.join(changed)}); give the recipe another `name`, "
                    "or choose another --out"
                )
        entry = entries.setdefault(
            trial.slug, TrialEntry(slug=trial.slug, name=trial.name, seed=trial.config.seed, run=run.root)
        )
        if entry.state not in ENDED or not run.exists():
            entry.set("waiting")
    for entry in entries.values():
        if Run(entry.run).finished():
            entry.set("finished")
    return entries


def write_spec(out: str, spec: ComparisonSpec, data: ComparedData, stored: StoredComparison | None) -> None:
    """Write comparison.yaml: the data and all trials, resolved; on a resume together with the earlier ones."""
    trials = dict(stored.planned) if stored else {}
    for trial in () if spec.searching else spec.trials:
        trials[trial.slug] = {
            "slug": trial.slug,
            "name": trial.name,
            "seed": trial.config.seed,
            "config": configuration.to_dict(trial.config),
        }
    merged = replace(data, prepared={**(stored.data.prepared if stored else {}), **data.prepared})
    content = {
        "data": merged.to_dict(),
        "schedule": spec.schedule,
        "searcher": spec.searcher,
        "trials": list(trials.values()),
    }
    storage.write_bytes(storage.join(out, PLAN), dump_yaml(content).encode())


class TrialTracker:
    """Follows the state of the trials, writes it to summary.json and shows it."""

    def __init__(
        self, out: str, data: ComparedData, entries: dict[str, TrialEntry], config: Config, show: Show
    ) -> None:
        self.out, self.data, self.entries, self.show = out, data, entries, show
        self.metric, self.mode = monitored_metric(config)
        self.finished_before = {slug for slug, entry in entries.items() if entry.state == "finished"}
        for entry in entries.values():
            self._read_history(entry)
            self._show(entry)
        self.write()

    def take(self, event: TrialProgress | TrialFailure | TuneEvent) -> None:
        """Handle an event of a trial's process or of Tune."""
        if isinstance(event, TrialProgress):
            self.show(event)
        elif isinstance(event, TrialFailure):
            if self.entries[event.trial].state == "running":  # else the failure follows from stopping it
                self.entries[event.trial].reason = event.reason
        else:
            entry = self.entries.setdefault(event.entry.slug, event.entry)
            if not event.ended:
                self._change(entry, event.state)

    def _change(self, entry: TrialEntry, state: str) -> None:
        """Set the state of a trial from Tune's: running, failed or complete."""
        if state == "running":
            entry.set("running")
        elif state == "failed":
            entry.set("failed", entry.reason or "its process died; see the log files of Ray")
        elif Run(entry.run).finished():
            entry.set("finished", entry.reason)
        else:
            entry.set("stopped", "fell behind the others (ASHA)")
        self._read_history(entry)
        self._show(entry)
        self.write()

    def _show(self, entry: TrialEntry) -> None:
        self.show(replace(entry))

    def _read_history(self, entry: TrialEntry) -> None:
        history, name = Run(entry.run).metrics(), self.metric.removeprefix("val_")
        values = [row.val[name] for row in history if name in row.val]
        if not values and entry.state == "finished":  # with folds no epoch is validated
            values = [value for key, value in Run(entry.run).result().metrics.items() if key == name]
        entry.epochs, entry.best = len(history), (min if self.mode == "min" else max)(values) if values else None

    def close(self) -> None:
        """Called when the processes of all trials have ended: trials that did not finish are interrupted, and those
        that were stopped may have ended further epochs meanwhile."""
        for entry in self.entries.values():
            if entry.state in ("stopped", "running", "waiting"):
                self._read_history(entry)
            if entry.state in ("running", "waiting"):
                if Run(entry.run).finished():
                    entry.set("finished")
                else:
                    entry.set("interrupted", "continue with --resume")
        self.write()

    def new_runs(self) -> list[str]:
        """The run folders of the trials that finished in this start."""
        return [
            entry.run
            for slug, entry in self.entries.items()
            if entry.state == "finished" and slug not in self.finished_before
        ]

    def summary(self) -> ComparisonSummary:
        runs = [entry.run for entry in self.entries.values() if entry.state == "finished"]
        return ComparisonSummary(
            comparison=self.out, data=self.data, monitor=self.metric, trials=list(self.entries.values()), runs=runs
        )

    def write(self) -> None:
        storage.write_json(storage.join(self.out, SUMMARY), self.summary().to_dict())
