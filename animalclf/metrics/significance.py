"""Significance over several trainings on one validation set: intervals and paired tests over seeds and images.

Two things vary: the random seed, and the sample of validation images. All seeds are evaluated on the same images, so
the two factors are crossed, and the variance of a mean over S seeds has two parts (analysis of variance of a two-way
layout with random effects):

- images: the variance of the mean over seeds when the images of each class are resampled, whole groups of duplicates at
  a time;
- seeds: the variance between the seeds' metrics, less the variance that the images alone cause in it, divided by S.

A bootstrap over two or three seeds gives intervals that are far too narrow. So the part of the seeds is estimated from
their variance, and the interval is Student's with the degrees of freedom of Satterthwaite (1946): wide if only two
seeds are known, normal if the part of the images dominates. Plain NumPy and SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class SeedVariance(NamedTuple):
    """The variance between the seeds' metrics, the part of it that the images alone cause, and the number of seeds."""

    between: float
    by_images: float
    seeds: int


def interval(values: np.ndarray, resampled: np.ndarray, images: int) -> tuple[float, float]:
    """The 95 % interval of the mean over seeds of a metric with `values` float (S,).

    `resampled`: float (B, S), the metric of the same trainings on B resamples of the `images` (or groups of
    duplicates). With one seed the interval is the range of the resamples, without the variance between seeds.
    """
    if len(values) == 1:
        low, high = np.quantile(resampled[:, 0], [0.025, 0.975])
        return float(low), float(high)
    mean = resampled.mean(1)
    by_images = (resampled - mean[:, None]).var(0).sum() / (len(values) - 1)
    seeds = SeedVariance(float(values.var(ddof=1)), float(by_images), len(values))
    half = _half_width(float(mean.var()), images, [seeds])
    return float(values.mean() - half), float(values.mean() + half)


def difference(
    first: np.ndarray, second: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None
) -> tuple[float, float, float, float]:
    """The difference in balanced accuracy of two recipes: (difference, low, high, p), with 95 % interval, two-sided p.

    `first`, `second`: bool (seeds, N), the images that each training classifies correctly; `labels` int64 (N,);
    `groups` int64 (N,): the images of a group (duplicates) are one observation. Images are paired, seeds are not. The
    variance of the images is that of a score test, as in McNemar's (1947): the squares of the differences themselves,
    so that a few images, all better, are weak evidence. A recipe with one seed represents that training alone.
    """
    support = np.bincount(labels)
    weight = 1 / (np.count_nonzero(support) * support[labels])
    gain = _by_group((first.mean(0) - second.mean(0)) * weight, groups)
    total_gain, image_variance = float(gain.sum()), float((gain**2).sum())
    seeds = []
    for correct in (first, second):
        if len(correct) > 1:
            by_images = np.stack([_by_group(one * weight, groups) for one in correct]).var(0, ddof=1).sum()
            seeds.append(SeedVariance(float((correct @ weight).var(ddof=1)), float(by_images), len(correct)))
    variance, freedom = _total(image_variance, len(gain), seeds)
    if not variance:
        return total_gain, total_gain, total_gain, 1.0
    half = student_quantile(freedom) * math.sqrt(variance)
    low, high = max(total_gain - half, -1.0), min(total_gain + half, 1.0)  # no difference is beyond 1
    return total_gain, low, high, student_p(total_gain / math.sqrt(variance), freedom)


def _by_group(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """The sum of `values` (N,) over each group, float64 (groups,); without groups the values."""
    return values if groups is None else np.bincount(np.unique(groups, return_inverse=True)[1], values)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for multiple tests by Holm (1979), which bounds the probability of any false positive."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.array(p_values, float)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return corrected.tolist()


def student_p(value: float, freedom: float) -> float:
    """The probability that Student's t with `freedom` >= 1 is at least as far from 0 as `value`."""
    from scipy.special import stdtr  # here, because it takes a quarter of a second and only leaderboards need it

    return float(2 * stdtr(freedom, -abs(value)))


def student_quantile(freedom: float, p: float = 0.05) -> float:
    """The absolute value that Student's t exceeds with probability `p`: 1.96 for many degrees of freedom, 12.7 for
    one."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - p / 2))


def _half_width(image_variance: float, images: int, seeds: Sequence[SeedVariance]) -> float:
    variance, freedom = _total(image_variance, images, seeds)
    return student_quantile(freedom) * math.sqrt(variance) if variance else 0.0


def _total(image_variance: float, images: int, seeds: Sequence[SeedVariance]) -> tuple[float, float]:
    """The total variance, and its degrees of freedom. These count the seeds' whole variance: subtracting the part of
    the images does not make it more certain."""
    total = image_variance + sum(max(0.0, between - by_images) / count for between, by_images, count in seeds)
    uncertainty = image_variance**2 / max(images - 1, 1) + sum(
        (between / count) ** 2 / (count - 1) for between, _, count in seeds
    )
    return total, max(1.0, total**2 / uncertainty) if uncertainty else 1.0
