"""All registered metrics of a confusion matrix, or of class probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from animalclf.metrics.calibration import calibration_bins
from animalclf.metrics.classification import per_class
from animalclf.metrics.intervals import bootstrap, clusters, independent_images, interval
from animalclf.metrics.registry import METRICS, Counts, Predictions, epoch_metrics
from animalclf.rows import Evaluation


def from_confusion(confusion: np.ndarray) -> dict[str, float]:
    """The value of each metric of counts by key, for a confusion matrix int64 (C, C), rows = true class.

    Raises ValueError for an empty matrix."""
    counts = Counts.from_confusion(confusion)
    entries = METRICS.entries().values()
    return {metric.key: metric.checked(float(metric.of_counts(counts))) for metric in entries if metric.of_counts}


def from_probabilities(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], groups: np.ndarray | None = None
) -> Evaluation:
    """Evaluate class probabilities float (N, C) of images with labels int64 (N,): every registered metric, those of
    counts with their 95 % interval. `groups`: the group of duplicates of each image, int64 (N,), which the intervals
    treat as one observation. Raises ValueError for no images."""
    predictions = Predictions.from_probabilities(probabilities, labels)
    confusion = predictions.confusion
    cluster = clusters(labels, groups)
    counts = Counts.from_confusion(confusion, independent_images(labels, cluster, len(classes)))
    resamples = [bootstrap(predictions, cluster, vary_certain) for vary_certain in (False, True)]
    entries = METRICS.entries().values()
    return Evaluation(
        rows=len(labels),
        metrics={metric.key: metric.value(counts, predictions) for metric in entries},
        per_class=per_class(counts),
        calibration=calibration_bins(predictions),
        classes=list(classes),
        confusion=confusion.tolist(),
        intervals={metric.key: list(interval(metric, counts, resamples)) for metric in entries if metric.of_counts},
    )


def main_metrics(evaluation: Evaluation) -> dict[str, float]:
    """The metrics at the top level of result.json, by key: those that are known after each epoch."""
    return {metric.key: evaluation[metric.key] for metric in epoch_metrics()}
