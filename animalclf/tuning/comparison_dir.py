"""The comparison folder (local or s3://): the only place that knows its file names, and what is known of each trial.

comparison.yaml      the data and all trials, resolved
summary.json         the state of every trial, as `compare` returns it
trials/<slug>/       ordinary run folders
ensemble/<method>/   ensembles of the finished trials, as `inference.ensemble` writes them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import yaml

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.errors import UserError
from animalclf.inference.mixing import METHODS
from animalclf.rows import ComparedData, ComparisonSummary, EnsembleResult, TrialEntry, TrialFailure, TrialProgress
from animalclf.runs import Run
from animalclf.tuning.spec import ComparisonSpec, monitored_metric
from animalclf.utils import storage

Show = Callable[[TrialProgress | TrialEntry], None]
PLAN, SUMMARY, TRIALS, ENSEMBLES = "comparison.yaml", "summary.json", "trials", "ensemble"
ENDED = ("finished", "stopped")  # states that a resume leaves alone


@dataclass(frozen=True)
class TuneEvent:
    """What Tune does with a trial."""

    entry: TrialEntry
    """The trial as it begins, for trials that a searcher proposes."""
    state: Literal["running", "complete", "failed"]
    ended: bool
    """Whether it had ended before this start, and only replays its history."""


@dataclass(frozen=True)
class Stored:
    """What an earlier start wrote into a comparison folder: the data, the planned trials (items of comparison.yaml, by slug) and what became of all
    trials (items of summary.json)."""

    data: ComparedData
    planned: dict[str, Mapping[str, object]]
    entries: list[TrialEntry]


@dataclass(frozen=True)
class Comparison:
    """What a comparison folder holds: the state of every trial, and the ensembles of those that finished."""

    trials: list[TrialEntry]
    ensembles: list[EnsembleResult]


def read_comparison(root: str) -> Comparison | None:
    """The comparison in the folder `root`, which may have been moved since; None where there is none."""
    root = storage.absolute(root)
    if not storage.exists(storage.join(root, SUMMARY)):
        return None
    summary = storage.read_json(storage.join(root, SUMMARY))
    before = f"{summary.get('comparison', root)}/"

    def moved(url: str) -> str:
        return storage.join(root, url.removeprefix(before)) if url.startswith(before) else url

    trials = [replace(entry, run=moved(entry.run)) for entry in map(TrialEntry.from_dict, summary["trials"])]
    results = [Run(storage.join(root, ENSEMBLES, method)) for method in METHODS]
    ensembles = [EnsembleResult.from_dict(run.read_result()) for run in results if run.finished()]
    return Comparison(
        trials, [replace(one, run=moved(one.run), members=[moved(url) for url in one.members]) for one in ensembles]
    )


def open_folder(out: str, resume: bool) -> Stored | None:
    """The comparison that is in `out` already; None for a new one. Raises UserError where `resume` does not agree with that."""
    if not storage.exists(storage.join(out, PLAN)):
        if resume:
            raise UserError(f"{out}: no comparison to resume here ({PLAN} is missing); start it without --resume")
        if Run(out).exists():
            raise UserError(f"{out}: is the folder of a single run; choose another --out")
        return None
    if not resume:
        raise UserError(
            f"{out}: there is a comparison here already; continue it or add trials to it with --resume, or choose another --out"
        )
    plan = yaml.safe_load(storage.read_bytes(storage.join(out, PLAN)))
    has_summary = storage.exists(storage.join(out, SUMMARY))
    entries = storage.read_json(storage.join(out, SUMMARY))["trials"] if has_summary else []
    planned = {item["slug"]: item for item in plan["trials"]}
    return Stored(ComparedData.from_dict(plan["data"]), planned, [TrialEntry.from_dict(entry) for entry in entries])


def check_same_data(out: str, stored: Stored | None, data: ComparedData) -> None:
    """Raises UserError where the comparison in `out` was made on other images."""
    if not stored:
        return
    was, now = stored.data.to_dict(), data.to_dict()
    changes = [
        f"{key}: {was[key]} -> {now[key]}" for key in ("classes", "train", "val", "test") if was[key] != now[key]
    ]
    if not changes and stored.data.listing_hash != data.listing_hash:
        changes = ["other files, labels or splits"]
    for size, prepared in data.prepared.items():
        then = stored.data.prepared.get(size, prepared)["fingerprint"]
        if not changes and then != prepared["fingerprint"]:
            changes = [f"fingerprint at {size}: {then[:12]} -> {prepared['fingerprint'][:12]}"]
    if changes:
        raise UserError(
            f"{out}: compares on other pictures than {data.source} (was {stored.data.source}): {'; '.join(changes)}; "
            "resume with the same data, or choose another --out"
        )


def known_trials(spec: ComparisonSpec, out: str, stored: Stored | None) -> dict[str, TrialEntry]:
    """The state of each trial, by slug: those of an earlier start, and those of the spec. Raises UserError where a run folder has a trial's name and
    another configuration."""
    # The folder may have been moved since.
    before = stored.entries if stored else []
    entries = {entry.slug: replace(entry, run=storage.join(out, TRIALS, entry.slug)) for entry in before}
    for trial in () if spec.searching else spec.trials:
        run = Run(storage.join(out, TRIALS, trial.slug))
        if run.exists():
            changed = configuration.differences(run.config(), trial.config)
            if changed:
                raise UserError(
                    f"{run.root}: has another configuration ({'; '.join(changed)}); give the recipe another `name`, or choose another --out"
                )
        entry = entries.setdefault(
            trial.slug, TrialEntry(slug=trial.slug, name=trial.name, seed=trial.config.seed, run=run.root)
        )
        if entry.state not in ENDED:
            entry.set("waiting")
    for entry in entries.values():
        if Run(entry.run).finished():
            entry.set("finished")
    return entries


def write_spec(out: str, spec: ComparisonSpec, data: ComparedData, stored: Stored | None) -> None:
    """comparison.yaml: the data and all trials, resolved; on a resume with those of before."""
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
    storage.write_bytes(storage.join(out, PLAN), yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())


class TrialTracker:
    """The state of the trials: written to the summary, shown to people."""

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
        """An event of a trial's process or of Tune."""
        if isinstance(event, TrialProgress):
            self.show(event)
        elif isinstance(event, TrialFailure):
            if self.entries[event.trial].state == "running":  # and not ended from here
                self.entries[event.trial].reason = event.reason
        else:
            entry = self.entries.setdefault(event.entry.slug, event.entry)
            if not event.ended:
                self._change(entry, event.state)

    def _change(self, entry: TrialEntry, state: str) -> None:
        """Take a state from Tune: running, failed or complete."""
        if state == "running":
            entry.set("running")
        elif state == "failed":
            entry.set("failed", entry.reason or "its process died; see Ray's log files")
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
        entry.epochs, entry.best = len(history), (min if self.mode == "min" else max)(values) if values else None

    def close(self) -> None:
        """Trials that run no longer without an end are interrupted."""
        for entry in self.entries.values():
            if entry.state in ("running", "waiting"):
                self._read_history(entry)
                if Run(entry.run).finished():
                    entry.set("finished")
                else:
                    entry.set("interrupted", "continue with --resume")
        self.write()

    def new_runs(self) -> list[str]:
        """The run folders that finished while this looked on."""
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
