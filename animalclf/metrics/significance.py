"""What figures of several trainings on one validation set can tell: intervals and paired tests over seeds and pictures. Plain NumPy and SciPy.

Two things vary: which seed was drawn, and which pictures happen to validate. All seeds are judged on the same pictures, so the two are crossed, and
the variance of a mean over S seeds has two parts (analysis of variance of a two-way layout with random effects):

- pictures: the variance of the seeds' mean when the pictures of each class are drawn anew;
- seeds: the variance between the seeds' figures, less what differs between them by the pictures alone, divided by S.

The bootstrap of two or three seeds is far too sure of itself. So the seeds' part is taken from their variance, and the interval is Student's with the
degrees of freedom of Satterthwaite (1946): wide where two seeds are all that is known, normal where the pictures decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def interval(values: np.ndarray, resampled: np.ndarray, pictures: int) -> tuple[float, float]:
    """The 95 % interval of the mean over seeds of a figure with `values` float (S,), where `resampled` float (B, S) are the figures of the same
    trainings on B resamples of the `pictures`. With one seed the range of the resamples, which says nothing of other seeds."""
    if len(values) == 1:
        low, high = np.quantile(resampled[:, 0], [0.025, 0.975])
        return float(low), float(high)
    mean = resampled.mean(1)
    noise = (resampled - mean[:, None]).var(0).sum() / (len(values) - 1)
    half = _half_width(float(mean.var()), pictures, [(float(values.var(ddof=1)), float(noise), len(values))])
    return float(values.mean() - half), float(values.mean() + half)


def difference(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> tuple[float, float, float, float]:
    """The difference in balanced accuracy of two recipes, its 95 % interval and two-sided p: (difference, low, high, p).

    `first`, `second`: bool (seeds, N), which pictures each training got right; `labels` int64 (N,). Pictures are paired, seeds are not. The pictures'
    variance is that of a score test, as in McNemar's (1947): the squares of the differences themselves, so that a few pictures, all better, prove no
    more than a few coin tosses can. A recipe with one seed stands for that training alone.
    """
    occurs = np.bincount(labels)
    weight = 1 / (np.count_nonzero(occurs) * occurs[labels])
    gain = (first.mean(0) - second.mean(0)) * weight
    found, variance, seeds = float(gain.sum()), float((gain**2).sum()), []
    for right in (first, second):
        if len(right) > 1:
            seeds.append(
                (float((right @ weight).var(ddof=1)), float((weight**2 * right.var(0, ddof=1)).sum()), len(right))
            )
    total, freedom = _total(variance, len(labels), seeds)
    if not total:
        return found, found, found, 1.0
    half = student_quantile(freedom) * math.sqrt(total)
    return found, found - half, found + half, student_p(found / math.sqrt(total), freedom)


def holm(chances: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm (1979): the chance of one false alarm among all stays below what it says."""
    order = np.argsort(chances, kind="stable")
    scaled = np.array(chances, float)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return corrected.tolist()


def student_p(value: float, freedom: float) -> float:
    """The probability that Student's t with `freedom` >= 1 lies at least as far from 0 as `value`."""
    from scipy.special import stdtr  # imported here: it takes a quarter of a second, and only leaderboards need it

    return float(2 * stdtr(freedom, -abs(value)))


def student_quantile(freedom: float, p: float = 0.05) -> float:
    """The value beyond which, on either side, Student's t lies with probability `p`: 1.96 for many degrees of freedom, 12.7
    for one."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - p / 2))


def _half_width(variance: float, pictures: int, seeds: Sequence[tuple[float, float, int]]) -> float:
    total, freedom = _total(variance, pictures, seeds)
    return student_quantile(freedom) * math.sqrt(total) if total else 0.0


def _total(variance: float, pictures: int, seeds: Sequence[tuple[float, float, int]]) -> tuple[float, float]:
    """The variance from `pictures` and from sets of seeds (variance between them, of it by the pictures alone, number), and its degrees of freedom.
    These count the seeds' whole variance: what is subtracted makes it no surer."""
    total = variance + sum(max(0.0, between - noise) / count for between, noise, count in seeds)
    unsure = variance**2 / max(pictures - 1, 1) + sum(
        (between / count) ** 2 / (count - 1) for between, _, count in seeds
    )
    return total, max(1.0, total**2 / unsure) if unsure else 1.0
