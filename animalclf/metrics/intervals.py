"""95 % intervals of metrics on one set of images: Wilson's for a fraction, a stratified bootstrap for other metrics of counts."""

from __future__ import annotations

import numpy as np

from animalclf.metrics.registry import Counts, Metric

RESAMPLES = 1000


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The interval of the fraction hits / total by Wilson's score (1927), which is right for small sets and near 0 and 1."""
    from scipy.stats import binomtest  # takes most of a second to import

    found = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def interval(metric: Metric, counts: Counts, resampled: Counts) -> tuple[float, float]:
    """The interval of a metric of counts: its own, or the range of its values on resamples."""
    assert metric.of_counts
    if metric.interval:
        return metric.interval(counts)
    low, high = np.quantile(metric.of_counts(resampled), [0.025, 0.975])
    return float(low), float(high)


def bootstrap(confusion: np.ndarray) -> Counts:
    """The counts of RESAMPLES confusion matrices: the images of each class are drawn anew, as many as there are.

    An interval from them has no width where every class is all right or all wrong: a resample of such images is the same."""
    generator = np.random.default_rng(0)
    support, hits = confusion.sum(1), np.zeros((RESAMPLES, len(confusion)), np.int64)
    predicted = np.zeros_like(hits)
    for number in np.flatnonzero(support):  # class by class: all matrices at once take gigabytes for a thousand classes
        drawn = generator.multinomial(support[number], confusion[number] / support[number], RESAMPLES)
        hits[:, number] = drawn[:, number]
        predicted += drawn
    return Counts(support, predicted, hits)
