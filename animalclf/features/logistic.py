"""Multinomial logistic regression, fitted to convergence by L-BFGS. Plain NumPy and SciPy."""

from __future__ import annotations

import numpy as np

from animalclf.features.heads import HEADS, Settings, Tensors, TrainingSet
from animalclf.features.lbfgs import minimum

TOLERANCE, MAX_STEPS = 0.01, 300  # of the gradient, in variables in which the curvature is about 1
MAX_LOGITS = 1_000_000
LEAST_CURVATURE = 1e-3  # of a bias, which nothing regularises


class LogisticRegression:
    """C times the weighted sum of the log losses, plus half the squared norm of the weights; features are centred and
    have a mean norm of 1."""

    candidates = tuple({"C": value} for value in (30.0, 1.0, 3.0, 10.0, 100.0, 300.0))

    def fits(self, images: int, classes: int) -> bool:
        return images * classes <= MAX_LOGITS

    def logits(self, training: TrainingSet, features: np.ndarray) -> np.ndarray:
        inputs, others = training.scaled(training.features), training.scaled(features)
        order = sorted(range(len(self.candidates)), key=lambda number: self.candidates[number]["C"])
        logits = np.empty((len(order), len(features), training.classes))
        path: list[tuple[float, np.ndarray]] = []  # from strong to weak regularisation: log C and the solution
        for number in order:
            strength = self.candidates[number]["C"]
            solution = _minimum(training, inputs, strength, _continued(path, np.log(strength)))
            path.append((np.log(strength), solution))
            logits[number] = others @ solution[:-1] + solution[-1]
        return logits

    def fit(self, training: TrainingSet, settings: Settings) -> Tensors:
        solution = _minimum(training, training.span[0], settings["C"], None)
        return training.linear(solution[:-1], solution[-1])


def _continued(path: list[tuple[float, np.ndarray]], position: float) -> np.ndarray | None:
    """The solution that the straight line through the last two reaches; the last one, if there is but one."""
    if len(path) < 2:
        return path[-1][1] if path else None
    (first, start), (second, end) = path[-2:]
    return end + (end - start) * ((position - second) / (second - first))


def _minimum(training: TrainingSet, inputs: np.ndarray, strength: float, start: np.ndarray | None) -> np.ndarray:
    """Weights and, in the last row, biases (R + 1, C) that minimise the objective for `inputs`, the centred and scaled
    features (N, R).

    Each variable is multiplied by the root of its curvature where the search starts. Along the principal axes of the
    features that is nearly the best scaling, and spares half of the steps. Products with the inputs are float32."""
    single, labels, weights = inputs.astype(np.float32), training.labels, training.weights[:, None]
    shape, images = (inputs.shape[1] + 1, training.classes), np.arange(len(inputs))
    begin = np.zeros(shape) if start is None else start

    def log_likelihoods(layer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the labels (N,), and the probabilities (N, C)."""
        logits = (single @ layer[:-1].astype(np.float32)).astype(np.float64) + layer[-1]
        logits -= logits.max(1, keepdims=True)
        probabilities = np.exp(logits)
        sums = probabilities.sum(1, keepdims=True)
        probabilities /= sums
        return logits[images, labels] - np.log(sums[:, 0]), probabilities

    probabilities = log_likelihoods(begin)[1]
    curvature = probabilities * (1 - probabilities) * weights
    roots = np.sqrt(
        np.vstack([(single**2).T @ curvature.astype(np.float32) + 1 / strength, curvature.sum(0) + LEAST_CURVATURE])
    )

    def objective(variables: np.ndarray) -> tuple[float, np.ndarray]:
        layer = variables.reshape(shape) / roots
        likelihoods, slope = log_likelihoods(layer)
        loss = -(training.weights @ likelihoods) + 0.5 * (layer[:-1] ** 2).sum() / strength
        slope[images, labels] -= 1
        slope *= weights
        gradient = np.vstack([single.T @ slope.astype(np.float32) + layer[:-1] / strength, slope.sum(0)])
        return float(loss), (gradient / roots).ravel()

    return minimum(objective, (begin * roots).ravel(), TOLERANCE, MAX_STEPS).reshape(shape) / roots


HEADS.register("logistic")(LogisticRegression())
