"""Combine the probabilities of several models: temperature scaling, then a vote, a mean, or a weighted mean. Plain
NumPy. Shapes: M models, N images, C classes.

Temperatures, weights and the ranking are fitted on validation images. Metrics on the images of the fit are optimistic,
so `cross_fitted` predicts each image with parameters that were fitted without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax

from animalclf.metrics import PRIMARY, Predictions, from_confusion

METHODS = ("vote", "mean", "weighted")
FOLDS = 5
MAX_TEMPERATURE = 20.0
_MIN_PROBABILITY = 1e-12  # as in the loss
_TIE_BONUS = 1e-3  # in votes: the winner of a tie has the largest probability


@dataclass(frozen=True, eq=False)
class Mixture:
    """A fitted ensemble of M models: `temperatures` float64 (M,), `weights` float64 (M,) that sum to 1, `ranking` int64
    (M,), the best model first. `last_temperature` calibrates the mixture: the mean of calibrated models is
    underconfident."""

    method: str
    temperatures: np.ndarray
    weights: np.ndarray
    ranking: np.ndarray
    last_temperature: float = 1.0

    def calibrate(self, probabilities: np.ndarray) -> np.ndarray:
        """Each model's probabilities (M, N, C) at its temperature: float64 (M, N, C)."""
        members = zip(probabilities, self.temperatures, strict=True)
        return np.stack([apply_temperature(member, temperature) for member, temperature in members])

    def mix(self, calibrated: np.ndarray) -> np.ndarray:
        """The ensemble's probabilities float64 (N, C) from calibrated ones (M, N, C).

        Those of a vote are fractions of the votes. One additional vote is spread evenly over the classes; otherwise a
        class without votes would have probability 0 and an infinite loss. The winner gets a thousandth of a vote more,
        which decides ties.
        """
        if self.method != "vote":
            return apply_temperature(np.tensordot(self.weights, calibrated, 1), self.last_temperature)
        classes = calibrated.shape[2]
        votes = calibrated.argmax(2)[self.ranking]
        counts = (votes[:, :, None] == np.arange(classes)).sum(0) + 1 / classes
        counts[np.arange(len(counts)), majority_vote(votes)] += _TIE_BONUS
        return apply_temperature(counts / counts.sum(1, keepdims=True), self.last_temperature)

    def combine(self, probabilities: np.ndarray) -> np.ndarray:
        """`calibrate`, then `mix`."""
        return self.mix(self.calibrate(probabilities))


def fit(method: str, probabilities: np.ndarray, labels: np.ndarray) -> Mixture:
    """Fit a mixture to the models' probabilities (M, N, C) and `labels` int64 (N,). Models are ranked by balanced
    accuracy; equal models stay in their order."""
    temperatures = np.array([fit_temperature(member, labels) for member in probabilities])
    scores = [
        from_confusion(Predictions.from_probabilities(member, labels).confusion)[PRIMARY] for member in probabilities
    ]
    ranking = np.argsort(-np.array(scores), kind="stable")
    mixture = Mixture(method, temperatures, np.full(len(probabilities), 1 / len(probabilities)), ranking)
    calibrated = mixture.calibrate(probabilities)
    if method == "weighted":
        mixture = replace(mixture, weights=fit_weights(calibrated[:, np.arange(len(labels)), labels]))
    return replace(mixture, last_temperature=fit_temperature(mixture.mix(calibrated), labels))


def cross_fitted(method: str, probabilities: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Out-of-fold probabilities float64 (N, C): each fold (`fold` int64 (N,)) by a mixture fitted on the others."""
    mixed = np.empty(probabilities.shape[1:], np.float64)
    for number in np.unique(fold):
        rows = fold == number
        mixture = fit(method, probabilities[:, ~rows], labels[~rows])
        mixed[rows] = mixture.combine(probabilities[:, rows])
    return mixed


def assign_folds(labels: np.ndarray, groups: np.ndarray, count: int = FOLDS) -> np.ndarray:
    """The fold of each image, int64 (N,): stratified by class, shuffled with a fixed seed, and all images of a group
    (`groups` int64 (N,)) in one fold. The label of a group is that of its first image."""
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    order = np.lexsort((np.random.default_rng(0).random(len(first)), labels[first]))
    fold = np.empty(len(first), np.int64)
    fold[order] = np.arange(len(first)) % count
    return fold[member]


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature from 1/20 to 20 at which probabilities (N, C) have the lowest negative log-likelihood (Guo et al.
    2017); above 1: the model was overconfident. The loss is convex in 1 / temperature, so the only zero of its
    derivative is its minimum."""
    logits = np.log(np.clip(probabilities.astype(np.float64), _MIN_PROBABILITY, 1))
    true = logits[np.arange(len(labels)), labels].mean()

    def derivative(log_inverse: float) -> float:
        return float((softmax(logits * np.exp(log_inverse), axis=1) * logits).sum(1).mean() - true)

    low, high = -np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE)
    if derivative(low) >= 0 or derivative(high) <= 0:  # the minimum is beyond a bound
        return MAX_TEMPERATURE if derivative(low) >= 0 else 1 / MAX_TEMPERATURE
    return float(np.exp(-brentq(derivative, low, high)))


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (N, C) at a temperature: float64 (N, C)."""
    logits = np.log(np.clip(probabilities.astype(np.float64), _MIN_PROBABILITY, 1))
    return np.asarray(softmax(logits / temperature, axis=-1))


def fit_weights(likelihood: np.ndarray, max_steps: int = 2000, tolerance: float = 1e-9) -> np.ndarray:
    """The weights float64 (M,), not negative, sum 1, of the mean with the lowest negative log-likelihood, from each
    model's probability of the true class (M, N). Expectation maximisation, which never increases this convex loss."""
    weights = np.full(len(likelihood), 1 / len(likelihood))
    clipped = np.maximum(likelihood, _MIN_PROBABILITY)
    for _ in range(max_steps):
        previous, responsibilities = weights, weights[:, None] * clipped
        weights = (responsibilities / responsibilities.sum(0)).mean(1)
        if np.abs(weights - previous).max() < tolerance:
            break
    return weights / weights.sum()


def majority_vote(votes: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
    """The winner int64 (N,) of each column of class numbers int64 (M, N), one row per voter, the best voter first. A
    tie goes to the class of the best voter among the tied ones."""
    votes = np.asarray(votes)
    counts = (votes[:, None] == votes[None]).sum(1)  # (M, N): the voters of each vote's class
    return votes[counts.argmax(0), np.arange(votes.shape[1])]  # argmax takes the first, so the best voter
