"""Metrics as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from animalclf.metrics.registry import METRICS
from animalclf.rows import Evaluation


class MetricLine(NamedTuple):
    """A row of a table of metrics; `interval` is empty if the metric has none."""

    title: str
    value: str
    interval: str

    @property
    def text(self) -> str:
        """Value and interval."""
        return f"{self.value}  (95 %: {self.interval})" if self.interval else self.value


def metric_lines(evaluation: Evaluation, headline: bool = False) -> list[MetricLine]:
    """One line for each registered metric of the evaluation, or only for the `headline` ones."""
    lines = []
    for key, metric in METRICS.entries().items():
        if key in evaluation.metrics and (metric.headline or not headline):
            interval = " to ".join(metric.text(bound) for bound in evaluation.intervals.get(key, []))
            lines.append(MetricLine(metric.title, metric.text(evaluation[key]), interval))
    return lines


def p_value(value: float) -> str:
    """A p value with three decimals, or < 0.001."""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def epoch_text(values: Mapping[str, float]) -> str:
    """`accuracy 0.9012 loss 0.4321 ...`: the validation metrics of an epoch by key, in one line."""
    present = [(metric, values[key]) for key, metric in METRICS.entries().items() if key in values]
    return " ".join(f"{metric.title} {metric.text(value)}" for metric, value in present)
