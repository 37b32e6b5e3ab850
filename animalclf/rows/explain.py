"""Results of `explain`."""

from __future__ import annotations

from dataclasses import dataclass, field

from animalclf.rows.base import OMIT_NONE, Row
from animalclf.rows.evaluation import Unreadable


@dataclass(frozen=True, kw_only=True)
class ExplainResult(Row):
    """What `explain` returns."""

    run: str
    folder: str
    images: int
    """Readable images, each with a PNG file."""
    unreadable: list[Unreadable] = field(metadata={"row": Unreadable})
    views: str | None = field(default=None, metadata=OMIT_NONE)
    """What the maps are averaged over, if over several views: flip or multi."""
    seconds: float
    page: str
    """URL of explain.html."""
    index: str
    """URL of index.csv."""
