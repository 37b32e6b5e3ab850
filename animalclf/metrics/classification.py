"""Metrics of the predicted class: accuracy, balanced accuracy, macro F1 and top-k accuracy; and metrics of each
class."""

from __future__ import annotations

import numpy as np

from animalclf.metrics import intervals
from animalclf.metrics.registry import Counts, Predictions, count_metric, prediction_metric
from animalclf.rows import PerClass


@count_metric(
    "balanced_accuracy", title="balanced accuracy", heading="balanced\naccuracy", interval=intervals.mean_recall
)
def balanced_accuracy(counts: Counts) -> np.ndarray:
    """Mean recall over the classes that occur."""
    occurring = counts.occurring
    return (counts.hits[..., occurring] / counts.support[occurring]).mean(-1)


@count_metric("accuracy", title="accuracy", heading="accu-\nracy", interval=intervals.accuracy)
def accuracy(counts: Counts) -> np.ndarray:
    """Fraction of the images whose predicted class is the true class."""
    return counts.hits.sum(-1) / counts.support.sum()


@count_metric("macro_f1", title="macro F1", heading="macro\nF1")
def macro_f1(counts: Counts) -> np.ndarray:
    """Mean F1 over the classes that occur; F1 is the harmonic mean of precision and recall."""
    return _f1(counts)[..., counts.occurring].mean(-1)


@prediction_metric("top2_accuracy", title="top-2 accuracy", headline=False)
def top2_accuracy(predictions: Predictions) -> float:
    """Fraction of the images whose true class is among the two most probable ones."""
    return float((_rank(predictions) < 2).mean())


@prediction_metric("top3_accuracy", title="top-3 accuracy", headline=False)
def top3_accuracy(predictions: Predictions) -> float:
    """Fraction of the images whose true class is among the three most probable ones."""
    return float((_rank(predictions) < 3).mean())


def per_class(counts: Counts) -> PerClass:
    """Precision, recall, F1 and support of each class. Precision is None for a class that is never predicted, recall
    and F1 for a class without rows."""
    recall = counts.hits / np.maximum(counts.support, 1)
    precision = counts.hits / np.maximum(counts.predicted, 1)
    return PerClass(
        precision=_none_without_images(precision, counts.predicted),
        recall=_none_without_images(recall, counts.support),
        f1=_none_without_images(_f1(counts), counts.support),
        support=counts.support.tolist(),
    )


def _f1(counts: Counts) -> np.ndarray:
    """float64 (..., C)."""
    return 2 * counts.hits / np.maximum(counts.support + counts.predicted, 1)


def _rank(predictions: Predictions) -> np.ndarray:
    """The rank of the true class int64 (N,), 0 = the most probable; ties are in the order of the classes, as in
    argmax."""
    probabilities, likelihood = predictions.probabilities, predictions.likelihood[:, None]
    earlier = np.arange(probabilities.shape[1]) < predictions.labels[:, None]
    return ((probabilities > likelihood) | ((probabilities == likelihood) & earlier)).sum(1)


def _none_without_images(values: np.ndarray, counts: np.ndarray) -> list[float | None]:
    return [float(value) if count else None for value, count in zip(values, counts, strict=True)]
