"""95 % intervals of metrics on one set of images: Wilson's for a fraction, else a stratified bootstrap of the
counts."""

from __future__ import annotations

import math

import numpy as np

from animalclf.metrics.registry import Counts, Metric

RESAMPLES = 1000
QUANTILE = 1.959963984540054  # of the standard normal distribution at 0.975


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Wilson's score interval (1927) of the fraction hits / total, which also holds for small sets and near 0 and 1."""
    fraction, square = hits / total, QUANTILE**2
    center = (2 * total * fraction + square) / (2 * (total + square))
    spread = QUANTILE / (2 * (total + square)) * math.sqrt(4 * total * fraction * (1 - fraction) + square)
    return (center - spread if hits else 0.0), (center + spread if hits < total else 1.0)


def mean_recall(counts: Counts) -> tuple[float, float] | None:
    """The interval of the mean recall from Wilson's intervals of the classes, combined by the method of variance
    estimates recovery (Zou, Huang and Zhang 2009, "A note on confidence interval estimation for a linear function of
    binomial proportions"). None if no class is entirely right or wrong: a bootstrap then varies each of them."""
    hits, support = counts.hits[counts.occurring], counts.support[counts.occurring]
    if not ((hits == 0) | (hits == support)).any():
        return None
    recalls = hits / support
    lows, highs = np.array([wilson(int(right), int(total)) for right, total in zip(hits, support, strict=True)]).T
    below, above = np.sqrt(((recalls - lows) ** 2).sum()), np.sqrt(((highs - recalls) ** 2).sum())
    mean, classes = float(recalls.mean()), len(recalls)
    return max(mean - float(below) / classes, 0.0), min(mean + float(above) / classes, 1.0)


def interval(metric: Metric, counts: Counts, resampled: Counts) -> tuple[float, float]:
    """The interval of a metric of counts: its own, or the quantiles of its values on resamples."""
    assert metric.of_counts
    bounds = metric.interval(counts) if metric.interval else None
    if bounds:
        return bounds
    low, high = np.quantile(metric.of_counts(resampled), [0.025, 0.975])
    return float(low), float(high)


def bootstrap(confusion: np.ndarray) -> Counts:
    """The counts of RESAMPLES confusion matrices, in which the images of each class are drawn with replacement.

    A class that is entirely right or wrong is the same in all of them."""
    generator = np.random.default_rng(0)
    support, hits = confusion.sum(1), np.zeros((RESAMPLES, len(confusion)), np.int64)
    predicted = np.zeros_like(hits)
    for number in np.flatnonzero(support):  # class by class: a thousand classes at once take gigabytes
        drawn = generator.multinomial(support[number], confusion[number] / support[number], RESAMPLES)
        hits[:, number] = drawn[:, number]
        predicted += drawn
    return Counts(support, predicted, hits)
