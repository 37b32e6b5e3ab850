"""Results of `labels` and `suggest`."""

from __future__ import annotations

from dataclasses import dataclass, field

from animalclf.rows.base import Row
from animalclf.rows.evaluation import Unreadable


@dataclass(frozen=True, kw_only=True)
class LabelsResult(Row):
    """What `labels` returns."""

    run: str
    images: int
    """Labelled images that were judged."""
    origin: str
    """Where the probabilities are from."""
    estimated: int
    """Wrong labels, by confident learning."""
    likely_wrong: int
    """Images that are listed because another class is predicted."""
    contradictory: int
    """Groups of near-duplicates with different labels."""
    listed: int
    """Images to decide on."""
    decided: int
    """Images with a decision from the corrections that the run was trained with."""
    table: str
    """URL of labels.csv."""
    page: str
    """URL of labels.html."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SuggestResult(Row):
    """What `suggest` returns."""

    run: str
    data: str
    images: int
    """Unlabelled images."""
    unreadable: list[Unreadable] = field(metadata={"row": Unreadable})
    duplicates: int
    """Near-duplicates of labelled images or of other unlabelled ones, which are not suggested."""
    suggested: list[str]
    """Paths or URLs of the images to label, the most useful first."""
    labelled: int
    """Labelled images that the table lists too."""
    unknown: int | None = None
    """Suggested images that perhaps show none of the classes; None if the run has no score of that."""
    table: str
    """URL of suggest.csv."""
    page: str
    """URL of suggest.html."""
    seconds: float
