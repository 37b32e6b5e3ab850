"""Slices: the accuracy on parts of the images by size, shape, brightness, folder and file format. Plain NumPy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd

from animalclf.metrics import significance
from animalclf.metrics.intervals import clusters, independent_images, wilson

MIN_IMAGES = 20  # independent ones, of a slice and of the other images
MAX_BINS, BIN_IMAGES = 4, 25  # equally large parts of the values of a number, and the images that each needs
NUMBERS = {"pixels": "image size (pixels)", "aspect": "width : height", "brightness": "brightness"}
NAMES = {"folder": "folder", "format": "file format"}


@dataclass(frozen=True)
class Slice:
    """Accuracy on the images of a slice."""

    title: str
    """What the images are divided by."""
    name: str
    images: int
    accuracy: float
    low: float
    high: float
    """The 95 % interval, of independent images."""
    others: float
    """Accuracy on the other images."""
    p: float
    """Of the score test of both accuracies, by Holm's method for all slices."""


def slices(images: pd.DataFrame) -> list[Slice]:
    """The slices with at least MIN_IMAGES independent images, the lowest accuracy first.

    `images`: one row an image with `correct` (bool), `cluster` (int64, of near-duplicates, see `clusters`) and the
    columns of NUMBERS and NAMES that are known. An image whose value is missing is in no slice by it.
    """
    rows = [item for item in (_slice(images, *part) for part in _parts(images)) if item]
    corrected = significance.holm([item.p for item in rows])
    rows = [Slice(**{**vars(item), "p": p}) for item, p in zip(rows, corrected, strict=True)]
    return sorted(rows, key=lambda item: item.accuracy)


def image_table(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """What `slices` takes, from a table of predictions of labelled images; see `predictions_table`."""
    groups = table["group"].to_numpy(np.int64) if "group" in table else None
    labels = table["label"].map({name: number for number, name in enumerate(classes)}).to_numpy(np.int64)
    names, paths = frozenset(classes), table["path"].tolist()
    return pd.DataFrame(
        {
            "correct": (table["predicted"] == table["label"]).to_numpy(),
            "cluster": clusters(labels, groups),
            "folder": _by_part([path[: path.rfind("/") + 1] for path in paths], partial(source_folder, classes=names)),
            "format": _by_part([path[path.rfind(".") :] for path in paths], _format),
        }
    )


def _by_part(parts: Sequence[str], function: Callable[[str], str | None]) -> np.ndarray:
    """`function` of each part of a path, object (N,); called once for equal ones."""
    values = {part: function(part) for part in set(parts)}
    return np.array([values[part] for part in parts], object)


def _format(suffix: str) -> str | None:
    """The format of a file whose name ends with `suffix`, from the dot; None without one."""
    match = re.fullmatch(r"\.(\w+)\n?", suffix)
    name = match[1].lower() if match else None
    return {"jpeg": "jpg", "tiff": "tif"}.get(name or "", name)


def source_folder(path: str, classes: Collection[str]) -> str:
    """The folder of an image without those of classes: the per-class metrics are about these, and a corrected label is
    another than the folder's."""
    return "/".join(part for part in path.split("/")[:-1] if part not in classes) or "."


def _parts(images: pd.DataFrame) -> Iterator[tuple[str, str, np.ndarray]]:
    """Title, name and rows (bool) of each possible slice."""
    for column in filter(images.columns.__contains__, NUMBERS):
        values = images[column].to_numpy(np.float64)
        known = values[np.isfinite(values)]
        bins = min(MAX_BINS, len(known) // BIN_IMAGES)
        edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1))) if bins > 1 else known[:0]
        for low, high in pairwise(edges):
            last = high == edges[-1]
            name = f"{_number(low, column)} to {_number(high, column)}"
            yield NUMBERS[column], name, (values >= low) & ((values <= high) if last else (values < high))
    for column in filter(images.columns.__contains__, NAMES):
        for name in images[column].dropna().unique():
            yield NAMES[column], str(name), (images[column] == name).to_numpy()


def _slice(images: pd.DataFrame, title: str, name: str, inside: np.ndarray) -> Slice | None:
    """None if too few images are inside or outside."""
    correct, cluster = images["correct"].to_numpy(), images["cluster"].to_numpy()
    total, other_total = (_independent(cluster[rows]) for rows in (inside, ~inside))
    if min(total, other_total) < MIN_IMAGES:
        return None
    accuracy, others = float(correct[inside].mean()), float(correct[~inside].mean())
    low, high = wilson(accuracy * total, total)
    pooled = (accuracy * total + others * other_total) / (total + other_total)
    error = math.sqrt(pooled * (1 - pooled) * (1 / total + 1 / other_total))
    p = math.erfc(abs(accuracy - others) / error / math.sqrt(2)) if error else 1.0
    return Slice(title, name, int(inside.sum()), accuracy, low, high, others, p)


def _independent(cluster: np.ndarray) -> float:
    """The number of independent images among those of these clusters."""
    numbers = np.unique(cluster, return_inverse=True)[1]
    return float(independent_images(np.zeros(len(numbers), np.int64), numbers, 1)[0]) if len(numbers) else 0.0


def _number(value: float, column: str) -> str:
    if column != "pixels":
        return f"{value:.2f}"
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value / 1e3:.0f} k" if value >= 1e4 else f"{value:,.0f}"
