"""Confusion matrix of the best run of each recipe; with many classes, the most confused pairs and the matrix of their
classes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from animalclf.inference.evaluate import ConfusedPair, confused_pairs
from animalclf.report import plots
from animalclf.report.data import ReportData
from animalclf.report.section import Content, register
from animalclf.rows import Evaluation

MAX_TABLE_CLASSES = 40  # the most classes whose whole matrix is legible
MAX_PLOT_CLASSES, MAX_PAIRS = 20, 30  # with more classes


@dataclass(frozen=True)
class Matrix:
    """The section's content for one run: the whole matrix `rows`, or `pairs` and the plot of their classes."""

    label: str
    classes: Sequence[str]
    rows: Sequence[tuple[str, list[int]]]
    pairs: Sequence[ConfusedPair]
    plotted: int
    """Classes of the plot."""
    plot: str
    """Name of the plot."""


@register("confusion_matrix", title="Confusion matrix", order=50, when=lambda data: bool(data.validated))
def confusion_matrix(data: ReportData) -> Content:
    matrices, figures = [], {}
    for number, (record, val) in enumerate(data.validated, start=1):
        plot = f"confusion-{number}-{_slug(record.config.name)}-seed-{record.config.seed}"
        pairs = confused_pairs(val.confusion, val.classes)
        is_complete = len(val.classes) <= MAX_TABLE_CLASSES
        numbers = list(range(len(val.classes))) if is_complete else most_confused_classes(val, pairs)
        counts = np.array(val.confusion)
        names = [val.classes[number] for number in numbers]
        matrix_counts, support = counts[np.ix_(numbers, numbers)], counts.sum(1)[numbers]
        figures[plot] = plots.draw(plots.confusion, record.label, names, matrix_counts, support)
        rows = list(zip(val.classes, val.confusion, strict=True)) if is_complete else []
        matrices.append(Matrix(record.label, val.classes, rows, pairs[:MAX_PAIRS], len(numbers), plot))
    return Content({"matrices": matrices}, plots=figures)


def most_confused_classes(val: Evaluation, pairs: Sequence[ConfusedPair]) -> list[int]:
    """The numbers of the classes of the most confused pairs, at most MAX_PLOT_CLASSES, in class order."""
    names: dict[str, None] = {}
    for pair in pairs:
        if len(names | {pair.true: None, pair.predicted: None}) > MAX_PLOT_CLASSES:
            break
        names |= {pair.true: None, pair.predicted: None}
    names = names or dict.fromkeys(val.classes[:MAX_PLOT_CLASSES])  # without mistakes the first classes
    return [number for number, name in enumerate(val.classes) if name in names]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:40]
