"""Multinomial logistic regression, fitted to convergence by L-BFGS. Plain NumPy and SciPy."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from animalclf.features.heads import HEADS, Settings, Tensors, TrainingSet

TOLERANCE, MAX_STEPS = 1e-4, 300
MAX_LOGITS = 1_000_000


class LogisticRegression:
    """C times the weighted sum of the log losses, plus half the squared norm of the weights; features are centred and
    have a mean norm of 1."""

    candidates = tuple({"C": value} for value in (30.0, 1.0, 3.0, 10.0, 100.0, 300.0))

    def fits(self, images: int, classes: int) -> bool:
        return images * classes <= MAX_LOGITS

    def logits(self, training: TrainingSet, features: np.ndarray) -> np.ndarray:
        inputs = training.in_span(features)
        order = sorted(range(len(self.candidates)), key=lambda number: self.candidates[number]["C"])
        logits, start = np.empty((len(order), len(features), training.classes)), None
        for number in order:  # from strong to weak regularisation, each from the last solution
            start = _minimum(training, self.candidates[number]["C"], start)
            logits[number] = inputs @ start[:-1] + start[-1]
        return logits

    def fit(self, training: TrainingSet, settings: Settings) -> Tensors:
        solution = _minimum(training, settings["C"], None)
        return training.linear(solution[:-1], solution[-1])


def _minimum(training: TrainingSet, strength: float, start: np.ndarray | None) -> np.ndarray:
    """Weights and, in the last row, biases (R + 1, C) that minimise the objective."""
    inputs, weights, one_hot = training.span[0], training.weights, training.one_hot
    shape = (inputs.shape[1] + 1, training.classes)

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        layer = parameters.reshape(shape)
        log_probabilities = log_softmax(inputs @ layer[:-1] + layer[-1], axis=1)
        loss = -weights @ (log_probabilities * one_hot).sum(1)
        logit_gradient = (np.exp(log_probabilities) - one_hot) * weights[:, None]
        gradient = np.vstack([inputs.T @ logit_gradient + layer[:-1] / strength, logit_gradient.sum(0)])
        return (loss + 0.5 * (layer[:-1] ** 2).sum() / strength) / len(inputs), gradient.ravel() / len(inputs)

    begin = np.zeros(shape) if start is None else start
    result = minimize(
        objective, begin.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": MAX_STEPS, "gtol": TOLERANCE}
    )
    return result.x.reshape(shape)


HEADS.register("logistic")(LogisticRegression())
