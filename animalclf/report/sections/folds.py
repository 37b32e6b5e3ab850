"""Folds: the metrics of each fold of a cross-validation, and their spread."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from animalclf.metrics import Metric, headline_metrics
from animalclf.report.data import ReportData, RunRecord
from animalclf.report.section import Content, register
from animalclf.rows import FoldRow


class FoldLine(NamedTuple):
    """A line of a table: a fold, or the mean or standard deviation over the folds."""

    name: str
    images: int | None
    values: list[str]


def _cross_validated_runs(data: ReportData) -> list[RunRecord]:
    return [record for record in data.best if record.result and record.result.folds]


@register("folds", title="Folds", order=20, when=lambda data: bool(_cross_validated_runs(data)))
def folds(data: ReportData) -> Content:
    tables = [{"label": record.label, "lines": _lines(record)} for record in _cross_validated_runs(data)]
    return Content({"tables": tables, "titles": [metric.title for metric in headline_metrics()]})


def _lines(record: RunRecord) -> list[FoldLine]:
    assert record.result and record.result.folds
    rows, metrics = record.result.folds, headline_metrics()
    lines = [FoldLine(str(row.fold), row.rows, [_text(metric, [row], np.mean) for metric in metrics]) for row in rows]
    lines.append(FoldLine("mean", None, [_text(metric, rows, np.mean) for metric in metrics]))
    lines.append(FoldLine("standard deviation", None, [_text(metric, rows, _deviation) for metric in metrics]))
    return lines


def _text(metric: Metric, rows: Sequence[FoldRow], statistic: Callable[[list[float]], Any]) -> str:
    """A statistic of a metric over folds; a dash in a run folder of a version that lacks the metric."""
    values = [row.metrics[metric.key] for row in rows if metric.key in row.metrics]
    return metric.text(float(statistic(values))) if values else "–"


def _deviation(values: list[float]) -> float:
    return float(np.std(values, ddof=1))
