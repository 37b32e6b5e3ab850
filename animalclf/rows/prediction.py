"""Results of `predict`, and of ensembles by mixing and by voting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from animalclf.rows.base import OMIT_NONE, Row
from animalclf.rows.evaluation import Evaluation, Unreadable


@dataclass(frozen=True, kw_only=True)
class SetSizes(Row):
    """Of prediction sets: the mean number of classes, and the fractions of sets of one class and of none."""

    mean: float
    one: float
    empty: float


@dataclass(frozen=True, kw_only=True)
class PredictionResult(Row):
    """What `predict` returns."""

    run: str
    data: str
    images: int = field(metadata={"old_keys": ["pictures"]})
    ignored: list[str]
    """Files that are no images by their names."""
    unreadable: list[Unreadable] = field(metadata={"row": Unreadable})
    """They have the class priors as their probabilities."""
    prior: str
    views: str | None = field(default=None, metadata=OMIT_NONE)
    """What the probabilities are averaged over, if over several views: flip or multi."""
    transported: int | None = field(default=None, metadata=OMIT_NONE)
    """Images whose class the transport to the class priors changed, if it was asked for."""
    unknown: int | None = field(default=None, metadata=OMIT_NONE)
    """Images that show none of the classes (`known` is no), if the run has the score."""
    coverage: float | None = field(default=None, metadata=OMIT_NONE)
    """That the prediction sets are calibrated for, if they were asked for."""
    set_sizes: SetSizes | None = field(default=None, metadata={"row": SetSizes, **OMIT_NONE})
    """Of the readable images, if there are any."""
    class_priors: dict[str, float] = field(metadata={"old_keys": ["prior_shares"]})
    predicted: dict[str, int]
    """Images of each predicted class."""
    seconds: float
    images_per_s: float = field(metadata={"old_keys": ["pictures_per_s"]})
    predictions: str
    """URL of the table of class probabilities."""
    submission: str
    """URL of submission.csv."""


@dataclass(frozen=True, kw_only=True)
class CrossFitting(Row):
    """How an ensemble is cross-fitted: the number of folds, and whether duplicates are known to be in one fold."""

    folds: int
    duplicates_together: bool = field(metadata={"old_keys": ["copies_together"]})


@dataclass(frozen=True, kw_only=True)
class EnsembleResult(Row):
    """An ensemble by one method: the content of its result.json. Run folders are URLs."""

    name: str
    kind: Literal["ensemble"] = "ensemble"
    method: str
    members: list[str]
    best: str
    """The member with the best balanced accuracy."""
    temperatures: list[float]
    """Of each member."""
    last_temperature: float
    """Of the mixture."""
    weights: list[float]
    flips: bool
    """Whether mirror images were averaged too: `views` is not none."""
    cross_fitted: CrossFitting = field(metadata={"row": CrossFitting})
    classes: list[str]
    val: Evaluation = field(metadata={"row": Evaluation})
    run: str
    metrics: dict[str, float] = field(metadata={"prefix": ""})
    """The main metrics of `val` by name, as in a training's result.json."""
    views: str | None = field(default=None, metadata=OMIT_NONE)
    """Over which each member averages, if several: flip or multi."""
    data: str | None = field(default=None, metadata=OMIT_NONE)
    """This and the following fields: of unlabelled images, if they were predicted; see PredictionResult."""
    images: int | None = field(default=None, metadata={"old_keys": ["pictures"], **OMIT_NONE})
    unreadable: list[Unreadable] | None = field(default=None, metadata={"row": Unreadable, **OMIT_NONE})
    prior: str | None = field(default=None, metadata=OMIT_NONE)
    class_priors: dict[str, float] | None = field(default=None, metadata={"old_keys": ["prior_shares"], **OMIT_NONE})
    predicted: dict[str, int] | None = field(default=None, metadata=OMIT_NONE)
    predictions: str | None = field(default=None, metadata=OMIT_NONE)
    submission: str | None = field(default=None, metadata=OMIT_NONE)


@dataclass(frozen=True, kw_only=True)
class VoteResult(Row):
    """A majority vote over submission files: the numbers of rows that are unanimous, tied, or differ from the first
    file."""

    files: list[str]
    submission: str
    rows: int
    unanimous: int
    ties: int
    changed: int
