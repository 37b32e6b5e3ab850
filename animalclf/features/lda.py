"""Linear discriminant analysis with a shrunk covariance. Plain NumPy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from animalclf.features.heads import HEADS, Settings, Tensors, TrainingSet

LEAST_VARIANCE = 1e-12  # of features that have a mean norm of 1; they may all be the same


class ShrinkageLDA:
    """Gaussian classes with one covariance (1 - a) S + a tr(S) / R I in the span of the features, where S is the
    weighted covariance within the classes."""

    candidates = tuple({"shrinkage": value} for value in (0.5, 0.02, 0.05, 0.1, 0.2, 0.35, 0.7, 0.9))

    def fits(self, images: int, classes: int) -> bool:
        return True

    def logits(self, training: TrainingSet, features: np.ndarray) -> np.ndarray:
        inputs = training.in_span(features)
        return np.stack([inputs @ weight + bias for weight, bias in _layers(training, self.candidates)])

    def fit(self, training: TrainingSet, settings: Settings) -> Tensors:
        weight, bias = next(_layers(training, [settings]))
        return training.linear(weight, bias)


def _layers(
    training: TrainingSet, candidates: tuple[Settings, ...] | list[Settings]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The dense layer of each candidate: weight (R, C) and bias (C,)."""
    inputs, weights = training.span[0], training.weights
    sums = (training.one_hot * weights[:, None]).T @ inputs
    means = sums / (training.priors * weights.sum())[:, None]
    within = inputs - means[training.labels]
    covariance = (within * weights[:, None]).T @ within / weights.sum()
    values, vectors = np.linalg.eigh(covariance)
    values, rotated = values.clip(0), means @ vectors
    for settings in candidates:
        shrinkage = settings["shrinkage"]
        shrunk = ((1 - shrinkage) * values + shrinkage * values.mean()).clip(LEAST_VARIANCE)
        weight = vectors @ (rotated / shrunk).T
        yield weight, np.log(training.priors) - 0.5 * (means.T * weight).sum(0)


HEADS.register("lda")(ShrinkageLDA())
