"""Temperature scaling (Guo et al. 2017): logits are divided by one number, so that confidence agrees with accuracy.
Plain NumPy and SciPy."""

from __future__ import annotations

import numpy as np

from animalclf.metrics.calibration import MIN_PROBABILITY

TEMPERATURES = (0.05, 20.0)


def fit_temperature(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The temperature with the lowest sum of the weighted log losses of logits (or log-probabilities) float (N, C) and
    its own squared logarithm, which bounds it if every image is classified correctly. Above 1: the model was
    overconfident."""
    from scipy.optimize import minimize_scalar  # here, because it takes a quarter of a second
    from scipy.special import log_softmax

    weights = np.ones(len(labels)) if weights is None else weights

    def objective(log_temperature: float) -> float:
        log_probabilities = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-weights @ log_probabilities[np.arange(len(labels)), labels]) + log_temperature**2

    if not len(labels):
        return 1.0
    result = minimize_scalar(objective, bounds=tuple(np.log(TEMPERATURES)), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(result.x))


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Log-probabilities float64, finite, of probabilities."""
    return np.log(np.clip(probabilities.astype(np.float64), MIN_PROBABILITY, 1))


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (..., C) at a temperature: float64 (..., C)."""
    logits = logits_of(probabilities) / temperature
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(-1, keepdims=True))


def cross_calibrate(probabilities: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Probabilities float64 (N, C), those of each fold (`fold` int64 (N,)) at the temperature that is fitted on other
    folds: metrics of them are not optimistic. Of several views, (N, V, C), it is fitted on the first, the image itself,
    as that of the model is."""
    logits = logits_of(probabilities if probabilities.ndim == 2 else probabilities[:, 0])
    calibrated = np.empty(probabilities.shape, np.float64)
    for number in np.unique(fold):
        rows = fold == number
        calibrated[rows] = apply_temperature(probabilities[rows], fit_temperature(logits[~rows], labels[~rows]))
    return calibrated
