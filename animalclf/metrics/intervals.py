"""95 % intervals of metrics on one set of images: Wilson's for a fraction, else a stratified bootstrap of the
counts."""

from __future__ import annotations

import numpy as np

from animalclf.metrics.registry import Counts, Metric

RESAMPLES = 1000


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Wilson's score interval (1927) of the fraction hits / total, which also holds for small sets and near 0 and 1."""
    from scipy.stats import binomtest  # here, because it takes most of a second

    bounds = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    return float(bounds.low), float(bounds.high)


def interval(metric: Metric, counts: Counts, resampled: Counts) -> tuple[float, float]:
    """The interval of a metric of counts: its own, or the quantiles of its values on resamples."""
    assert metric.of_counts
    if metric.interval:
        return metric.interval(counts)
    low, high = np.quantile(metric.of_counts(resampled), [0.025, 0.975])
    return float(low), float(high)


def bootstrap(confusion: np.ndarray) -> Counts:
    """The counts of RESAMPLES confusion matrices, in which the images of each class are drawn with replacement.

    An interval from them has no width where each class is entirely right or wrong: all resamples are the same."""
    generator = np.random.default_rng(0)
    support, hits = confusion.sum(1), np.zeros((RESAMPLES, len(confusion)), np.int64)
    predicted = np.zeros_like(hits)
    for number in np.flatnonzero(support):  # class by class: a thousand classes at once take gigabytes
        drawn = generator.multinomial(support[number], confusion[number] / support[number], RESAMPLES)
        hits[:, number] = drawn[:, number]
        predicted += drawn
    return Counts(support, predicted, hits)
