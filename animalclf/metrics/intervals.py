"""95 % intervals of metrics on one set of images: Wilson's for a fraction, else a stratified bootstrap of the counts.

Duplicates are no independent observations: the bootstrap draws clusters (the images of one group of duplicates and one
class), and Wilson's interval counts the independent images. If every image is alone, clusters are images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from animalclf.metrics.registry import Counts, Metric, Predictions

RESAMPLES = 1000
QUANTILE = 1.959963984540054  # of the normal distribution at 0.975


def clusters(labels: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """The cluster of each image, int64 (N,), numbered in the order of their first images. `groups`: the group of
    duplicates of each image, int64 (N,); None if there are no duplicates."""
    if groups is None:
        return np.arange(len(labels))
    number = np.unique(groups, return_inverse=True)[1]
    pairs = number * (int(labels.max(initial=0)) + 1) + labels
    _, first, cluster = np.unique(pairs, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[cluster]


def independent_images(labels: np.ndarray, cluster: np.ndarray, classes: int) -> np.ndarray:
    """The number of independent images of each class, float64 (classes,): Kish's effective sample size of clusters
    whose images are all right or all wrong, the square of the sum of their sizes over the sum of their squares."""
    size = np.bincount(cluster)
    squares = np.bincount(labels, size[cluster], classes)  # each image adds the size of its cluster
    return np.bincount(labels, minlength=classes) ** 2 / np.maximum(squares, 1)


def wilson(hits: float, total: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of the fraction hits / total, which also holds for small sets and near 0 and 1.
    Counts may be fractional."""
    fraction, square = hits / total, QUANTILE**2 / total
    centre = (fraction + square / 2) / (1 + square)
    half = QUANTILE / (1 + square) * math.sqrt(fraction * (1 - fraction) / total + square / (4 * total))
    return 0.0 if hits <= 0 else centre - half, 1.0 if hits >= total else centre + half


def accuracy(counts: Counts) -> tuple[float, float]:
    """Wilson's interval of the fraction of correct images."""
    images = counts.support.sum()
    squares = (counts.support[counts.occurring] ** 2 / counts.independent[counts.occurring]).sum()
    independent = images**2 / squares
    return wilson(float(counts.hits.sum() / images * independent), float(independent))


def mean_recall(counts: Counts) -> tuple[float, float] | None:
    """The interval of the mean recall from Wilson's intervals of the classes, combined by the method of variance
    estimates recovery (Zou, Huang and Zhang 2009, "A note on confidence interval estimation for a linear function of
    binomial proportions"). None if no class is entirely right or wrong: a bootstrap then varies each of them."""
    hits, support = counts.hits[counts.occurring], counts.support[counts.occurring]
    if not ((hits == 0) | (hits == support)).any():
        return None
    recalls, independent = hits / support, counts.independent[counts.occurring]
    bounds = [wilson(float(recall * total), float(total)) for recall, total in zip(recalls, independent, strict=True)]
    lows, highs = np.array(bounds).T
    below, above = np.sqrt(((recalls - lows) ** 2).sum()), np.sqrt(((highs - recalls) ** 2).sum())
    mean, classes = float(recalls.mean()), len(recalls)
    return max(mean - float(below) / classes, 0.0), min(mean + float(above) / classes, 1.0)


def interval(metric: Metric, counts: Counts, resamples: Sequence[Counts]) -> tuple[float, float]:
    """The interval of a metric of counts: its own, or what covers its value and its quantiles on each of `resamples`:
    drawn recalls of classes that are entirely right lie below the value, so their upper quantile does too."""
    assert metric.of_counts
    bounds = metric.interval(counts) if metric.interval else None
    if bounds:
        return bounds
    values = [float(metric.of_counts(counts))]
    for resampled in resamples:
        values += np.quantile(metric.of_counts(resampled), [0.025, 0.975]).tolist()
    return min(values), max(values)


def bootstrap(predictions: Predictions, cluster: np.ndarray, vary_certain: bool) -> Counts:
    """The counts of RESAMPLES confusion matrices, in which the clusters of each class are drawn with replacement.

    The counts of a class are scaled to its images, because clusters differ in size. A class that is entirely right or
    wrong is the same in all resamples; with `vary_certain` its recall is drawn instead (see `_certain_recalls`), and
    the wrong images of a class that was right are predicted as each of the other classes equally often.
    """
    confusion, generator = predictions.confusion, np.random.default_rng(0)
    all_alone = len(np.unique(cluster)) == len(cluster)
    support, predicted = confusion.sum(1), np.zeros((RESAMPLES, len(confusion)))
    hits, wrong = np.zeros_like(predicted), np.zeros_like(predicted)
    independent = independent_images(predictions.labels, cluster, len(confusion))
    recalls = _certain_recalls(confusion, independent) if vary_certain else {}
    for number in map(int, np.flatnonzero(support)):  # class by class: a thousand classes at once take gigabytes
        if all_alone:
            draws = generator.multinomial(support[number], confusion[number] / support[number], RESAMPLES)
            columns = np.arange(len(confusion))
        else:
            columns, draws = _draw_clusters(predictions, cluster, number, generator)
        hits[:, number] = draws[:, columns == number].sum(1)
        if number in recalls:
            hits[:, number] = recalls[number] * support[number]
            predicted[:, number] += hits[:, number]
            if confusion[number, number]:
                wrong[:, number] = support[number] - hits[:, number]
            else:
                predicted[:, columns] += draws * (1 - recalls[number])[:, None]
        else:
            predicted[:, columns] += draws
    occurring = support > 0
    if occurring.sum() > 1:
        others = wrong.sum(1, keepdims=True) - wrong[:, occurring]
        predicted[:, occurring] += others / (occurring.sum() - 1)
    return Counts(support, predicted, hits)


def _certain_recalls(confusion: np.ndarray, independent: np.ndarray) -> dict[int, np.ndarray]:
    """Recalls float64 (RESAMPLES,) of each class that is entirely right or wrong, drawn from Jeffreys' posterior for
    its independent images (Brown, Cai and DasGupta 2001, "Interval Estimation for a Binomial Proportion")."""
    support, right, generator = confusion.sum(1), confusion.diagonal(), np.random.default_rng(1)
    return {
        int(number): generator.beta(
            0.5 + independent[number] * bool(right[number]), 0.5 + independent[number] * (not right[number]), RESAMPLES
        )
        for number in np.flatnonzero(support)
        if right[number] in (0, support[number])
    }


def _draw_clusters(
    predictions: Predictions, cluster: np.ndarray, label: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The classes int64 (K,) that images of class `label` are predicted as, and their counts float64 (RESAMPLES, K) on
    resamples of its clusters."""
    rows = predictions.labels == label
    columns, column = np.unique(predictions.predicted[rows], return_inverse=True)
    number = np.unique(cluster[rows], return_inverse=True)[1]
    counts = np.zeros((number.max() + 1, len(columns)), np.int64)
    np.add.at(counts, (number, column), 1)
    patterns, frequency = np.unique(counts, axis=0, return_counts=True)  # clusters with the same predictions are alike
    draws = generator.multinomial(len(counts), frequency / len(counts), RESAMPLES) @ patterns.astype(np.float64)
    return columns, draws * (rows.sum() / draws.sum(1, keepdims=True))
