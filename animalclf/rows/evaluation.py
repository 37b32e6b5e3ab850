"""Metrics of class probabilities on a labelled set, and the result of `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field

from animalclf.rows.base import OMIT_NONE, Row


@dataclass(frozen=True, kw_only=True)
class PerClass(Row):
    """Metrics of each class, in class order; None if a class is never predicted (precision) or has no rows."""

    precision: list[float | None]
    recall: list[float | None]
    f1: list[float | None]
    support: list[int]


@dataclass(frozen=True, kw_only=True)
class CalibrationBin(Row):
    """A row of a reliability diagram: images of similar confidence, their mean confidence and their accuracy."""

    images: int = field(metadata={"old_keys": ["pictures"]})
    confidence: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Evaluation(Row):
    """The metrics of class probabilities on one labelled set; `evaluation["accuracy"]` is one of them."""

    rows: int
    """Images."""
    metrics: dict[str, float] = field(metadata={"prefix": ""})
    """Every registered metric by its key."""
    per_class: PerClass = field(metadata={"row": PerClass})
    calibration: list[CalibrationBin] = field(metadata={"row": CalibrationBin})
    classes: list[str]
    confusion: list[list[int]]
    """Counts (C, C), rows = true class."""
    intervals: dict[str, list[float]]
    """95 % interval [low, high] of the metrics that have one, by key."""

    def __getitem__(self, metric: str) -> float:
        return self.metrics[metric]


@dataclass(frozen=True, kw_only=True)
class Unreadable(Row):
    """An image that cannot be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class EvaluationResult(Evaluation):
    """What `evaluate` returns and writes as evaluate-<name>.json. The metrics leave out what is `unreadable`."""

    run: str
    data: str
    source: str | None = field(default=None, metadata=OMIT_NONE)
    """The folder or table that the prepared set `data` was made of."""
    split: str
    """Empty if all images of a folder or table are evaluated."""
    prior: str
    views: str | None = field(default=None, metadata=OMIT_NONE)
    """What the probabilities are averaged over, if over several views: flip or multi."""
    transport: bool | None = field(default=None, metadata=OMIT_NONE)
    """True if the probabilities were transported to the class priors; the notes have the effect."""
    class_priors: dict[str, float] = field(metadata={"old_keys": ["prior_shares"]})
    epoch: int
    images: int = field(metadata={"old_keys": ["pictures"]})
    """The unreadable ones included."""
    unreadable: list[Unreadable] = field(metadata={"row": Unreadable})
    notes: list[str]
    predictions: str
    """URL of the table of class probabilities."""
    seconds: float
