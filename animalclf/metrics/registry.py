"""METRICS, the table of all metrics: what a metric is, and how one is registered.

    @count_metric("accuracy", title="accuracy")
    def accuracy(counts: Counts) -> np.ndarray:
        return counts.hits.sum(-1) / counts.support.sum()

A registered metric is in result.json, the table after a training, `evaluate`, ensembles, leaderboards and reports. One
that is known after each epoch is also in metrics.jsonl (as val_<key>), the line of an epoch, TensorBoard and MLflow,
and a value of train.monitor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from animalclf.rows.base import METRIC_TITLES
from animalclf.utils.registry import Registry

PRIMARY = "balanced_accuracy"  # ranks recipes, runs and ensemble members; leaderboards test its differences


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of a confusion matrix: `support` int64 (C,), the rows of each class; `predicted` and `hits` int64
    (..., C), how often each class is predicted, and correctly. Leading axes are resamples, in which the support of each
    class is the same; resamples of duplicates have fractional counts."""

    support: np.ndarray
    predicted: np.ndarray
    hits: np.ndarray
    effective: np.ndarray | None = None
    """float64 (C,): see `independent`."""

    @classmethod
    def from_confusion(cls, confusion: np.ndarray, independent: np.ndarray | None = None) -> Counts:
        """The counts of a confusion matrix int64 (C, C), rows = true class. `independent`: the independent images of
        each class, float64 (C,), if there are duplicates. Raises ValueError for an empty matrix."""
        if not confusion.sum():
            raise ValueError("no rows to evaluate")
        return cls(confusion.sum(1), confusion.sum(0), confusion.diagonal(), independent)

    @property
    def occurring(self) -> np.ndarray:
        """The numbers of the classes that have rows, int64."""
        return np.flatnonzero(self.support)

    @property
    def independent(self) -> np.ndarray:
        """The independent images of each class, (C,): duplicates count as one (see intervals.py)."""
        return self.support if self.effective is None else self.effective


@dataclass(frozen=True, eq=False)
class Predictions:
    """Class probabilities of N images, and columns derived from them: `labels` and `predicted` int64 (N,); `confidence`
    and `likelihood` float (N,), the probability of the predicted and of the true class."""

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    likelihood: np.ndarray
    table: np.ndarray  # float (M, C)
    rows: np.ndarray  # int64 (N,), of the table

    @classmethod
    def from_probabilities(cls, probabilities: np.ndarray, labels: np.ndarray) -> Predictions:
        """Predictions with probabilities float (N, C) for images with labels int64 (N,)."""
        rows = np.arange(len(labels))
        return cls(
            labels=labels,
            predicted=probabilities.argmax(1),
            confidence=probabilities.max(1),
            likelihood=probabilities[rows, labels],
            table=probabilities,
            rows=rows,
        )

    @property
    def probabilities(self) -> np.ndarray:
        """Class probabilities float (N, C): a copy. The columns are cheaper."""
        return self.table[self.rows]

    @property
    def confusion(self) -> np.ndarray:
        """The confusion matrix int64 (C, C), rows = true class."""
        count = self.table.shape[1]
        return np.bincount(self.labels * count + self.predicted, minlength=count * count).reshape(count, count)

    def take(self, pick: np.ndarray) -> Predictions:
        """The predictions of the images `pick` int64 (K,)."""
        return Predictions(
            labels=self.labels[pick],
            predicted=self.predicted[pick],
            confidence=self.confidence[pick],
            likelihood=self.likelihood[pick],
            table=self.table,
            rows=self.rows[pick],
        )


CountFunction = Callable[[Counts], np.ndarray]  # float (...), one value for each resample
PredictionFunction = Callable[[Predictions], float]
CountF = TypeVar("CountF", bound=CountFunction)
PredictionF = TypeVar("PredictionF", bound=PredictionFunction)


@dataclass(frozen=True)
class Metric:
    """An entry of METRICS, computed either from counts or from predictions."""

    key: str
    title: str
    """In sentences and tables."""
    heading: str = ""
    """In narrow columns; default: the title."""
    of_counts: CountFunction | None = None
    of_predictions: PredictionFunction | None = None
    interval: Callable[[Counts], tuple[float, float] | None] | None = None
    """The 95 % interval of a metric of counts; without it, or if it is None: a bootstrap (see intervals.py)."""
    higher_is_better: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    """Minimum and maximum."""
    value_format: str = ".4f"
    """Format specification of a value; `short_format` in tables of many values."""
    short_format: str = ".3f"
    headline: bool = True
    """Shown in leaderboards and in the table after a training."""
    each_epoch: bool = True
    """Known after each epoch, not only after the final evaluation."""

    def value(self, counts: Counts, predictions: Predictions) -> float:
        """The value on one set of images."""
        if self.of_counts:
            return self.checked(float(self.of_counts(counts)))
        assert self.of_predictions
        return self.checked(self.of_predictions(predictions))

    def checked(self, value: float) -> float:
        """`value` as a plain number. Raises ValueError if it is not finite: JSON has no such number."""
        if not np.isfinite(value):
            raise ValueError(f"metric {self.key} is {value}, which is not a finite number")
        return float(value)

    def text(self, value: float) -> str:
        """A value as text."""
        return f"{value:{self.value_format}}"

    def short_text(self, value: float) -> str:
        """A value as text, in a table of many values."""
        return f"{value:{self.short_format}}"

    def best(self, values: list[float]) -> float:
        """The best of `values`."""
        return max(values) if self.higher_is_better else min(values)


METRICS: Registry[Metric] = Registry("metric", package="animalclf.metrics", in_workers=True)


def register_metric(metric: Metric) -> None:
    """Add an entry to METRICS, and its title to the tables of rows. Raises ValueError for a key that is taken."""
    METRICS.register(metric.key)(metric)
    METRIC_TITLES[metric.key] = metric.title


def count_metric(key: str, *, title: str, **settings: Any) -> Callable[[CountF], CountF]:
    """Decorator: register a function of Counts, which returns one value per resample, as the metric `key`. `settings`:
    see Metric. Raises ValueError for a key that is taken."""

    def register(function: CountF) -> CountF:
        register_metric(Metric(key, title, of_counts=function, **settings))
        return function

    return register


def prediction_metric(key: str, *, title: str, **settings: Any) -> Callable[[PredictionF], PredictionF]:
    """Decorator: register a function of Predictions as the metric `key`. It is not known after each epoch, because
    training does not store probabilities then. `settings`: see Metric. Raises ValueError for a key that is taken."""

    def register(function: PredictionF) -> PredictionF:
        register_metric(Metric(key, title, of_predictions=function, each_epoch=False, **settings))
        return function

    return register


def headline_metrics() -> list[Metric]:
    """The metrics of leaderboards and of the table after a training, the primary one first."""
    return [metric for metric in METRICS.entries().values() if metric.headline]


def epoch_metrics() -> list[Metric]:
    """The metrics that are known after each epoch: the values of train.monitor."""
    return [metric for metric in METRICS.entries().values() if metric.each_epoch]
