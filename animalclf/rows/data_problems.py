"""What is wrong with some images of a prepared set, and does not stop a training."""

from __future__ import annotations

from dataclasses import dataclass, field

from animalclf.rows.base import Row
from animalclf.rows.evaluation import Unreadable


@dataclass(frozen=True, kw_only=True)
class DataProblems(Row):
    """The images and class names to look at before a training. False if there are none."""

    unreadable: list[Unreadable] = field(default_factory=list, metadata={"row": Unreadable})
    skipped: dict[str, int] = field(default_factory=dict)
    """Files that are not images, by their extension."""
    contradictory: list[dict[str, str]] = field(default_factory=list)
    """Groups of duplicates with more than one class: path -> class."""
    across_splits: list[dict[str, str]] = field(default_factory=list)
    """Groups of duplicates that a given split divides: path -> split."""
    single_colour: list[str] = field(default_factory=list)
    """Paths of images whose pixels are all equal."""
    similar_classes: list[list[str]] = field(default_factory=list)
    """Class names that differ in case or Unicode form only."""

    def __bool__(self) -> bool:
        return any(vars(self).values())
