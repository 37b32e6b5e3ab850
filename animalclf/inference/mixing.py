"""Combine the probabilities of several models: temperature scaling, then a vote, a mean, or a weighted mean. Plain
NumPy. Shapes: M models, N images, C classes.

Temperatures, weights and the ranking are fitted on validation images. Metrics on the images of the fit are optimistic,
so `fit_out_of_fold` also predicts each image with parameters that were fitted without it. Weights are pulled towards
equal ones as strongly as is best out of fold, so that a weighted mean is never worse there than the plain one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from animalclf.features.temperature import apply_temperature, fit_temperature, logits_of
from animalclf.metrics import PRIMARY, Predictions, from_confusion
from animalclf.metrics.calibration import MIN_PROBABILITY

METHODS = ("vote", "mean", "weighted")
FOLDS = 5
EQUAL = math.inf
PULLS = (EQUAL, 1.0, 0.1, 0.01)
"""Towards equal weights: what `fit_out_of_fold` chooses from. See `fit_weights`."""
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


def fit(method: str, probabilities: np.ndarray, labels: np.ndarray, pull: float = PULLS[-1]) -> Mixture:
    """Fit a mixture to the models' probabilities (M, N, C) and `labels` int64 (N,). Models are ranked by balanced
    accuracy; equal models stay in their order. `pull`: of the weights, see `fit_weights`."""
    return _weigh(_fit_temperatures(method, probabilities, labels), probabilities, labels, pull)


def fit_out_of_fold(
    method: str, probabilities: np.ndarray, labels: np.ndarray, fold: np.ndarray
) -> tuple[Mixture, np.ndarray]:
    """A mixture fitted on all images, and out-of-fold probabilities float64 (N, C): each fold (`fold` int64 (N,)) by a
    mixture fitted on the others. Of PULLS it has the one with the lowest log loss out of fold."""
    fit_rows = [fold != number for number in np.unique(fold)]
    unweighted = [_fit_temperatures(method, probabilities[:, rows], labels[rows]) for rows in fit_rows]
    best_pull, best, lowest = EQUAL, np.empty(probabilities.shape[1:]), math.inf
    for pull in PULLS if method == "weighted" else (EQUAL,):
        mixed = np.empty(probabilities.shape[1:], np.float64)
        for rows, mixture in zip(fit_rows, unweighted, strict=True):
            fitted = _weigh(mixture, probabilities[:, rows], labels[rows], pull)
            mixed[~rows] = fitted.combine(probabilities[:, ~rows])
        loss = -float(np.log(np.maximum(mixed[np.arange(len(labels)), labels], MIN_PROBABILITY)).mean())
        if loss < lowest:
            best_pull, best, lowest = pull, mixed, loss
    return fit(method, probabilities, labels, best_pull), best


def _fit_temperatures(method: str, probabilities: np.ndarray, labels: np.ndarray) -> Mixture:
    """A mixture with fitted temperatures and ranking, and equal weights."""
    temperatures = np.array([fit_temperature(logits_of(member), labels) for member in probabilities])
    scores = [
        from_confusion(Predictions.from_probabilities(member, labels).confusion)[PRIMARY] for member in probabilities
    ]
    ranking = np.argsort(-np.array(scores), kind="stable")
    return Mixture(method, temperatures, np.full(len(probabilities), 1 / len(probabilities)), ranking)


def _weigh(mixture: Mixture, probabilities: np.ndarray, labels: np.ndarray, pull: float) -> Mixture:
    """`mixture` with fitted weights (of method "weighted") and last temperature."""
    calibrated = mixture.calibrate(probabilities)
    if mixture.method == "weighted" and pull < EQUAL:
        mixture = replace(mixture, weights=fit_weights(calibrated[:, np.arange(len(labels)), labels], pull))
    return replace(mixture, last_temperature=fit_temperature(logits_of(mixture.mix(calibrated)), labels))


def fit_weights(
    likelihood: np.ndarray, pull: float = PULLS[-1], max_steps: int = 2000, tolerance: float = 1e-9
) -> np.ndarray:
    """The weights float64 (M,), positive, sum 1, of the mean with the lowest negative log-likelihood, from each model's
    probability of the true class (M, N); `pull` is the weight of a Dirichlet prior with equal means in units of the
    images, so that no weight is below pull / (M (1 + pull)). Expectation maximisation, which never increases this
    convex loss."""
    members, images = likelihood.shape
    weights, prior = np.full(members, 1 / members), pull * images / members
    clipped = np.maximum(likelihood, MIN_PROBABILITY)
    for _ in range(max_steps):
        previous, responsibilities = weights, weights[:, None] * clipped
        weights = ((responsibilities / responsibilities.sum(0)).sum(1) + prior) / (images + members * prior)
        if np.abs(weights - previous).max() < tolerance:
            break
    return weights / weights.sum()


def majority_vote(votes: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
    """The winner int64 (N,) of each column of class numbers int64 (M, N), one row per voter, the best voter first. A
    tie goes to the class of the best voter among the tied ones."""
    votes = np.asarray(votes)
    counts = (votes[:, None] == votes[None]).sum(1)  # (M, N): the voters of each vote's class
    return votes[counts.argmax(0), np.arange(votes.shape[1])]  # argmax takes the first, so the best voter
