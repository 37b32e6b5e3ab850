"""A comparison: its trials, data, summary and result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from animalclf.rows.base import OMIT_NONE, Row
from animalclf.rows.data_problems import DataProblems
from animalclf.rows.leaderboard import Leaderboard
from animalclf.rows.prediction import EnsembleResult
from animalclf.rows.training import ProgressEvent

TrialState = Literal["waiting", "running", "finished", "stopped", "failed", "interrupted"]


@dataclass(frozen=True)
class TrialProgress:
    """A progress event of a trial's training."""

    trial: str
    """Slug of the trial."""
    event: ProgressEvent


@dataclass(frozen=True)
class TrialFailure:
    """Why a trial failed, in one line."""

    trial: str
    """Slug of the trial."""
    reason: str


@dataclass(kw_only=True)
class TrialEntry(Row):
    """The state of a trial, which changes: an item of summary.json's `trials`. `stopped`: early, by the schedule."""

    slug: str
    """Name of its run folder."""
    name: str
    seed: int
    run: str
    state: TrialState = "waiting"
    reason: str = ""
    epochs: int = 0
    """Finished epochs."""
    best: float | None = None
    """Best value so far of the metric that the comparison monitors."""
    values: dict[str, object] | None = field(default=None, metadata=OMIT_NONE)
    """Of the searched keys, if a searcher proposed the trial."""

    def set(self, state: TrialState, reason: str = "") -> None:
        """Change the state, and its reason."""
        self.state, self.reason = state, reason


@dataclass(frozen=True, kw_only=True)
class ComparedData(Row):
    """The images on which the trials of a comparison train and validate."""

    source: str
    classes: int
    train: int
    val: int
    test: int
    listing_hash: str = field(metadata={"old_keys": ["pictures"]})
    """SHA-256 of paths, labels, splits and contents."""
    prepared: dict[str, dict[str, str]]
    """Prepared sets: stored size -> root and fingerprint."""


@dataclass(frozen=True, kw_only=True)
class ComparisonSummary(Row):
    """The content of a comparison's summary.json."""

    comparison: str
    data: ComparedData = field(metadata={"row": ComparedData})
    monitor: str
    """Key of the metric in metrics.jsonl that ranks the trials."""
    trials: list[TrialEntry] = field(metadata={"row": TrialEntry})
    runs: list[str]
    """Run folders of the finished trials."""
    problems: DataProblems | None = field(default=None, metadata={"row": DataProblems, **OMIT_NONE})
    """Of the images; not in the file."""


@dataclass(frozen=True, kw_only=True)
class ComparisonResult(Row):
    """What `compare` returns: the leaderboard of the finished trials, their ensembles and the report."""

    comparison: str
    """URL of the comparison folder."""
    leaderboard: Leaderboard = field(metadata={"row": Leaderboard})
    ensembles: list[EnsembleResult] = field(metadata={"row": EnsembleResult})
    trials: list[TrialEntry] = field(metadata={"row": TrialEntry})
    report: str
    """URL of report.html."""
    problems: DataProblems | None = field(default=None, metadata={"row": DataProblems, **OMIT_NONE})
    """Of the images."""

    @property
    def failed(self) -> list[TrialEntry]:
        """The trials that failed, each with its `reason`."""
        return [trial for trial in self.trials if trial.state == "failed"]

    def __repr__(self) -> str:
        return f"ComparisonResult({self.comparison!r}: {self.leaderboard!r})"

    def _repr_html_(self) -> str:
        return f"{self.leaderboard._repr_html_()}{super()._repr_html_()}"
