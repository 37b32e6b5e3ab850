"""Results of `export`."""

from __future__ import annotations

from dataclasses import dataclass, field

from animalclf.rows.base import OMIT_NONE, Row


@dataclass(frozen=True, kw_only=True)
class ExportCheck(Row):
    """An exported file against `predict`, on validation images."""

    file: str
    files: int
    """Image files of many sizes and modes, made of the images."""
    same_class: int
    """Files that get the same class."""
    largest_difference: float
    """Of a probability, on these files."""
    largest_of_pixels: float
    """The same from the pixels that `predict` decodes of them."""
    images: int
    """Images as they are stored."""
    split: str = "val"
    """Theirs: val, or train in a run without validation images."""
    accuracy: float
    """On the images."""
    accuracy_of_predict: float


@dataclass(frozen=True, kw_only=True)
class ExportResult(Row):
    """What `export` returns."""

    run: str
    folder: str
    files: dict[str, int]
    """Bytes by name."""
    checks: list[ExportCheck] | None = field(default=None, metadata={"row": ExportCheck, **OMIT_NONE})
    seconds: float
