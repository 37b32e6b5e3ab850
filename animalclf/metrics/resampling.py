"""Metrics of one training on resamples of its images: the spread that the sample of images causes. Plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from animalclf.metrics.registry import Counts, Metric, Predictions

RESAMPLES = 500
MAX_CLUSTERS = 20_000  # of a resample


def resampled_metrics(
    predictions: Predictions, metrics: Sequence[Metric], cluster: np.ndarray
) -> dict[str, np.ndarray]:
    """Each metric of one training on resamples of the clusters (intervals.clusters) within each class, by key: float64
    (RESAMPLES,). The resamples are the same for every training.

    A resample of more than MAX_CLUSTERS clusters draws that many, of each class its fraction, and its deviation from
    the value on all images is multiplied by the root of the fraction, so that the time does not grow with the images
    (the m out of n bootstrap: Bickel, Götze and van Zwet 1997, "Resampling fewer than n observations").
    """
    generator = np.random.default_rng(0)
    members = np.argsort(cluster, kind="stable")
    first, images = np.unique(cluster[members], return_index=True, return_counts=True)[1:]
    labels = predictions.labels[members[first]]  # of the clusters
    order, start, size, drawn = _strata(labels, MAX_CLUSTERS / len(labels))
    whole = predictions.confusion
    support = whole.sum(1)
    fraction = drawn / np.maximum(np.bincount(labels, minlength=len(drawn)), 1)
    class_root, root = np.sqrt(np.pad(fraction, (0, len(support) - len(drawn)))), np.sqrt(drawn.sum() / len(labels))
    prediction_metrics = {metric.key: metric.of_predictions for metric in metrics if metric.of_predictions}
    counts, values = [], []
    for _ in range(RESAMPLES):
        rows = order[start + (generator.random(len(start)) * size).astype(np.int64)]
        # The members of each drawn cluster, one cluster after the other.
        offset = np.arange(images[rows].sum()) - np.repeat(images[rows].cumsum() - images[rows], images[rows])
        resample = predictions.take(members[np.repeat(first[rows], images[rows]) + offset])
        confusion = resample.confusion
        scale = class_root * support / np.maximum(confusion.sum(1), 1)  # clusters differ in size
        rest = 1 - class_root
        predicted = scale @ confusion + rest @ whole
        counts.append(Counts(support, predicted, scale * confusion.diagonal() + rest * whole.diagonal()))
        values.append([metric(resample) for metric in prediction_metrics.values()])
    on_all = np.array([metric(predictions) for metric in prediction_metrics.values()])
    columns = dict(zip(prediction_metrics, (root * np.array(values) + (1 - root) * on_all).T, strict=True))
    stacked = Counts(support, np.stack([each.predicted for each in counts]), np.stack([each.hits for each in counts]))
    return columns | {metric.key: metric.of_counts(stacked) for metric in metrics if metric.of_counts}


def _strata(labels: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """How to draw clusters with `labels` int64 (K,) within each class: their order by class, and of each draw the first
    place of its class in this order and the size of its class; then the draws of each class, int64 (C,): `fraction`
    of its clusters, at least one, all if the fraction is 1 or more."""
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    drawn = sizes if fraction >= 1 else np.minimum(np.maximum(np.round(sizes * fraction).astype(np.int64), 1), sizes)
    classes = np.repeat(np.arange(len(sizes)), drawn)
    return order, np.searchsorted(labels[order], classes), sizes[classes], drawn
