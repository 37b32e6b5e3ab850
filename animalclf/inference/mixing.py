"""How the probabilities of several models become one: calibrated by temperature, then a vote, a mean, or a weighted mean. Plain numpy.

Whatever is fitted is fitted on validation pictures. A figure measured on the pictures of the fit flatters, so `cross_fitted` judges each picture
with parameters that were fitted without it.
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
_SMALLEST = 1e-12  # probability, as in the loss
_TIE = 1e-3  # of a vote, so that the winner of a tie has the largest share


@dataclass(frozen=True, eq=False)
class Mixture:
    """A fitted ensemble of M models: `temperatures` float64 (M,), `weights` float64 (M,) that sum to 1, `ranking` int64 (M,), the best first.
    `last`: the temperature of the mixture itself, for the mean of models that are each as sure as they should be is not sure enough."""

    method: str
    temperatures: np.ndarray
    weights: np.ndarray
    ranking: np.ndarray
    last: float = 1.0

    def calibrate(self, chances: np.ndarray) -> np.ndarray:
        """Each model's probabilities (M, N, C) at its temperature: float64 (M, N, C)."""
        return np.stack(
            [cooled(mine, temperature) for mine, temperature in zip(chances, self.temperatures, strict=True)]
        )

    def mix(self, calibrated: np.ndarray) -> np.ndarray:
        """One set of probabilities float64 (N, C) of calibrated ones (M, N, C).

        A vote's are the shares of the votes, with one more vote spread evenly over the classes (else a class without a vote could never be
        right, and the loss would be infinite) and a thousandth of a vote for the winner of a tie.
        """
        if self.method != "vote":
            return cooled(np.tensordot(self.weights, calibrated, 1), self.last)
        count = calibrated.shape[2]
        votes = calibrated.argmax(2)[self.ranking]
        shares = (votes[:, :, None] == np.arange(count)).sum(0) + 1 / count
        shares[np.arange(len(shares)), majority(votes)] += _TIE
        return cooled(shares / shares.sum(1, keepdims=True), self.last)

    def combine(self, chances: np.ndarray) -> np.ndarray:
        """`calibrate`, then `mix`."""
        return self.mix(self.calibrate(chances))


def fit(method: str, chances: np.ndarray, labels: np.ndarray) -> Mixture:
    """The mixture of models with probabilities (M, N, C) that suits pictures with `labels` int64 (N,). The ranking is by balanced accuracy; of
    equals the first given is the better."""
    temperatures = np.array([temperature(mine, labels) for mine in chances])
    scores = [from_confusion(Predictions.of(mine, labels).confusion)[PRIMARY] for mine in chances]
    ranking = np.argsort(-np.array(scores), kind="stable")
    mixture = Mixture(method, temperatures, np.full(len(chances), 1 / len(chances)), ranking)
    calibrated = mixture.calibrate(chances)
    if method == "weighted":
        mixture = replace(mixture, weights=weights(calibrated[:, np.arange(len(labels)), labels]))
    return replace(mixture, last=temperature(mixture.mix(calibrated), labels))


def cross_fitted(method: str, chances: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Probabilities float64 (N, C): those of each fold (`fold` int64 (N,)) from a mixture fitted on all other folds."""
    mixed = np.empty(chances.shape[1:], np.float64)
    for number in np.unique(fold):
        here = fold == number
        mixed[here] = fit(method, chances[:, ~here], labels[~here]).combine(chances[:, here])
    return mixed


def folds(labels: np.ndarray, groups: np.ndarray, count: int = FOLDS) -> np.ndarray:
    """A fold number of every picture, int64 (N,): each class spread evenly, pictures of one group (int64 (N,)) together, the order drawn by a fixed
    seed. A group of several labels counts as its first."""
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    order = np.lexsort((np.random.default_rng(0).random(len(first)), labels[first]))
    fold = np.empty(len(first), np.int64)
    fold[order] = np.arange(len(first)) % count  # dealt in turn along the classes
    return fold[member]


def temperature(chances: np.ndarray, labels: np.ndarray) -> float:
    """The temperature from 1/20 to 20 at which probabilities (N, C) have the smallest negative log-likelihood (Guo et al. 2017); above 1 means that
    they were too sure. The loss is convex in 1 / temperature, so the zero of its slope is its only minimum."""
    logits = np.log(np.clip(chances.astype(np.float64), _SMALLEST, 1))
    true = logits[np.arange(len(labels)), labels].mean()

    def slope(log_inverse: float) -> float:
        return float((softmax(logits * np.exp(log_inverse), axis=1) * logits).sum(1).mean() - true)

    low, high = -np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE)
    if slope(low) >= 0 or slope(high) <= 0:  # the minimum is beyond a bound
        return MAX_TEMPERATURE if slope(low) >= 0 else 1 / MAX_TEMPERATURE
    return float(np.exp(-brentq(slope, low, high)))


def cooled(chances: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (N, C) at a temperature: float64 (N, C)."""
    return np.asarray(softmax(np.log(np.clip(chances.astype(np.float64), _SMALLEST, 1)) / temperature, axis=-1))


def weights(true: np.ndarray, rounds: int = 2000, tolerance: float = 1e-9) -> np.ndarray:
    """The weights float64 (M,), none negative, sum 1, of the mean with the smallest negative log-likelihood, from each model's probability of the
    true class (M, N). By expectation maximisation of a mixture: the loss is convex and no step makes it worse."""
    found = np.full(len(true), 1 / len(true))
    likely = np.maximum(true, _SMALLEST)
    for _ in range(rounds):
        before, shares = found, found[:, None] * likely
        found = (shares / shares.sum(0)).mean(1)
        if np.abs(found - before).max() < tolerance:
            break
    return found / found.sum()


def majority(votes: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
    """The winner of every column of class numbers int64 (M, N), one row a voter, the best voter first: int64 (N,). Of classes with equally many votes
    that wins which the best of their voters chose."""
    votes = np.asarray(votes)
    supporters = (votes[:, None] == votes[None]).sum(1)  # how many voters share each vote
    return votes[supporters.argmax(0), np.arange(votes.shape[1])]  # the first of equals is the best voter's
