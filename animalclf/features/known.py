"""Whether an image shows one of the classes at all ("none of these"): a score from its features and probabilities.

Two parts, each divided by its standard deviation over validation images, are subtracted:

- the relative Mahalanobis distance (Ren, Fort, Liu et al. 2021) of the features, scaled to unit length: that to the
  nearest class minus that to all training images, both with shrunk covariances;
- the entropy of the class probabilities. It takes the place of the energy of the logits (Liu, Wang, Owens, Li 2020),
  which is 0 for every image with fitted heads: they give log-probabilities.

The score is shifted so that 95 % of the validation images have 0 or more. Plain NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from animalclf.features.kernel_ridge import squared_distances

KEPT = 0.95
"""Fraction of the validation images that count as known."""
SHRINKAGE = 0.7
"""Weight of the mean variance in each covariance."""
DIRECTIONS = 64
"""Principal directions of a covariance that have a variance of their own; the others share one."""
MIN_SPREAD = (1e-3, 0.05)
"""Lower bounds of the standard deviations of distance and entropy (nats), for validation images that are all alike."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Distributions with one shrunk covariance: `centres` float32 (K, F), `directions` float32 (R, F), scaled so that
    the squared Mahalanobis distance is |x - c|^2 / variance - |directions (x - c)|^2."""

    centres: np.ndarray
    directions: np.ndarray
    variance: np.ndarray
    """Of the other directions, float32 ()."""

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance to the nearest centre, float (N,)."""
        outside = squared_distances(features, self.centres) / self.variance
        inside = squared_distances(features @ self.directions.T, self.centres @ self.directions.T)
        nearest: np.ndarray = (outside - inside).min(1)
        return nearest


@dataclass(frozen=True, eq=False)
class FeatureDistances:
    """The distributions of the training features: one of each class, and one of all."""

    classes: Gaussian
    everything: Gaussian

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Relative Mahalanobis distance float (N,) of features float32 (N, F); high for images of no class."""
        unit = _unit(features)
        return self.classes.distances(unit) - self.everything.distances(unit)


@dataclass(frozen=True, eq=False)
class KnownScorer:
    """The fitted score. A pure function of features and calibrated probabilities."""

    distances: FeatureDistances
    spread: np.ndarray
    """Standard deviation of distance and entropy over validation images, float (2,)."""
    threshold: float
    """What is subtracted from the score."""
    validation: np.ndarray
    """The scores of the validation images, float32 (N,): the threshold is selected on them."""

    def score(self, features: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """float32 (N,) of penultimate features float32 (N, F) and calibrated probabilities (N, C): 0 or more for an
        image of a known class."""
        parts = np.stack([self.distances(features), entropy(probabilities)], axis=1)
        return (_combined(parts, self.spread) - self.threshold).astype(np.float32)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """In nats, float64 (N,), of probabilities (N, C)."""
    values = probabilities.astype(np.float64)
    return -np.sum(values * np.log(np.clip(values, 1e-30, None)), axis=1)


def fit_distances(features: np.ndarray, labels: np.ndarray) -> FeatureDistances:
    """The distributions of training features float (N, F) with class numbers int64 (N,)."""
    unit = _unit(features)
    present, number = np.unique(labels, return_inverse=True)
    means = np.stack([unit[number == each].mean(0) for each in range(len(present))])
    return FeatureDistances(_gaussian(unit - means[number], means), _gaussian(unit - unit.mean(0), unit.mean(0)[None]))


def fit_scorer(distances: FeatureDistances, validation: np.ndarray, probabilities: np.ndarray) -> KnownScorer:
    """The score with these `distances`, from validation images that these were not fitted on: their own distances
    float (N,) (out of fold: each by the distances without its fold) and calibrated probabilities (N, C)."""
    parts = np.stack([validation, entropy(probabilities)], axis=1)
    spread = np.maximum(parts.std(0), MIN_SPREAD)
    scores = _combined(parts, spread)
    lowest = math.floor((1 - KEPT) * len(scores) + 1e-9)  # images below the threshold, so that KEPT or more stay
    threshold = float(np.sort(scores)[lowest])
    return KnownScorer(distances, spread, threshold, (scores - threshold).astype(np.float32))


def _combined(parts: np.ndarray, spread: np.ndarray) -> np.ndarray:
    combined: np.ndarray = -(parts / spread).sum(1)
    return combined


def _unit(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(lengths > 0, lengths, 1)


def _gaussian(residuals: np.ndarray, centres: np.ndarray) -> Gaussian:
    """With the shrunk covariance of `residuals` float (N, F)."""
    images, width = residuals.shape
    mean = max(float((residuals**2).sum()) / images / width, 1e-12)
    values, vectors = _principal(residuals)
    rest = max(mean * width - values.sum(), 0) / max(width - len(values), 1)
    shared = (1 - SHRINKAGE) * rest + SHRINKAGE * mean
    own = (1 - SHRINKAGE) * values + SHRINKAGE * mean
    scaled = vectors * np.sqrt(np.clip(1 / shared - 1 / own, 0, None))[:, None]
    return Gaussian(centres.astype(np.float32), scaled.astype(np.float32), np.array(shared, np.float32))


def _principal(residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest variances float (R,) of `residuals` (N, F), and their directions (R, F)."""
    images, width = residuals.shape
    if images < width:  # the small one of the two products
        values, vectors = np.linalg.eigh(residuals @ residuals.T / images)
        used = np.flatnonzero(values > values[-1] * 1e-9)[-DIRECTIONS:]
        used = used[values[used] > 0]
        return values[used], (vectors[:, used] / np.sqrt(values[used] * images)).T @ residuals
    values, vectors = np.linalg.eigh(residuals.T @ residuals / images)
    return values[-DIRECTIONS:].clip(0), vectors[:, -DIRECTIONS:].T
