"""The folds of a cross-validation (`train.folds`) on a prepared set. Plain NumPy."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from animalclf.config import Config
from animalclf.data.prepared_set import Prepared
from animalclf.errors import UserError
from animalclf.features.folds import deal_folds, groups_of_classes

MAX_NAMED = 5  # classes in an error


def folded_rows(prepared: Prepared) -> np.ndarray:
    """The manifest rows (int64, ascending) of the training and validation images, which the folds share."""
    return np.sort(np.concatenate([prepared.rows("train"), prepared.rows("val")]))


def image_folds(prepared: Prepared, config: Config) -> np.ndarray:
    """The fold of each row of `folded_rows`, int64 (N,), from 0 to `train.folds` - 1, drawn by `data.split_seed`: each
    class is in every fold, and duplicates are in one. Raises UserError as `check_folds`."""
    rows = folded_rows(prepared)
    labels, groups = prepared.labels[rows], rows if prepared.groups is None else prepared.groups[rows]
    counts = groups_of_classes(labels, groups, len(prepared.classes))
    images = dict(zip(prepared.classes, counts.tolist(), strict=True))
    check_folds(prepared.root, config.train.folds, images, prepared.info.get("given_splits", []))
    return deal_folds(labels, groups, config.train.folds, config.data.split_seed)


def check_folds(data: str, folds: int, images: Mapping[str, int], given_splits: Collection[str]) -> None:
    """Raise UserError if `data` gives its own validation images, and for classes with fewer different `images` than
    folds."""
    if "val" in given_splits:
        raise UserError(
            f"{data}: gives its own validation images, which folds would mix with the training images; train without "
            "--folds (train.folds)"
        )
    small = [f"{name!r} ({count})" for name, count in images.items() if count < folds]
    if small:
        more = f" and {len(small) - MAX_NAMED} more" if len(small) > MAX_NAMED else ""
        most = min(images.values())
        remedy = f"use at most --folds {most}, or " if most > 1 else ""
        raise UserError(
            f"train.folds={folds}: classes with fewer different images than folds: "
            f"{', '.join(small[:MAX_NAMED])}{more}; {remedy}add images, or remove these classes"
        )
