"""Prediction sets: the classes that an image may be, so that the true one is among them as often as is asked for.

Split conformal prediction with the least ambiguous sets (Sadinle, Lei, Wasserman 2019): a set has every class whose
probability reaches a threshold, which is selected on images that the model was not trained on. Plain NumPy.
"""

from __future__ import annotations

import numpy as np


def group_weights(groups: np.ndarray | None, images: int) -> np.ndarray:
    """Weights float (N,) of `images` images: those of one group of near-duplicates, int64 (N,), share a weight of 1
    (Dunn, Wasserman, Ramdas 2022: the groups are exchangeable, their images are not)."""
    if groups is None:
        return np.ones(images)
    _, number, counts = np.unique(groups, return_inverse=True, return_counts=True)
    weights: np.ndarray = 1 / counts[number]
    return weights


def set_threshold(
    probabilities: np.ndarray, labels: np.ndarray, coverage: float, weights: np.ndarray, new_weight: float = 1.0
) -> float:
    """The highest probability that the true class reaches in a fraction `coverage` of the calibration images, with
    the correction for their finite number; 0, which every class reaches, if they are too few.

    `probabilities` (N, C), `labels` int64 (N,), `weights` float (N,), `new_weight`: of a new image."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    order = np.argsort(-true, kind="stable")
    enough = np.cumsum(weights[order]) >= coverage * (weights.sum() + new_weight) - 1e-9
    return float(true[order][enough.argmax()]) if enough.any() else 0.0


def max_coverage(weights: np.ndarray, new_weight: float = 1.0) -> float:
    """The highest coverage that calibration images of the `weights` float (N,) allow; above it, sets have all
    classes."""
    return float(weights.sum() / (weights.sum() + new_weight))


def prediction_sets(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Whether each class is in the set of each image, bool (N, C), of probabilities (N, C). A set is empty if no class
    is probable enough."""
    members: np.ndarray = probabilities >= threshold
    return members
