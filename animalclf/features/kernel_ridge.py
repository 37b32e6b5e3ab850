"""Kernel ridge regression of the classes with a Gaussian kernel. Plain NumPy and SciPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from animalclf.features.heads import HEADS, Settings, Tensors, TrainingSet

MAX_IMAGES = 5_000  # a kernel of 200 MB, decomposed for each candidate
LOGIT_SCALE = 10.0  # of the regressed probabilities: about what makes them log-probabilities


class KernelRidge:
    """One-hot classes minus their priors, regressed with k(x, y) = exp(-width |x - y|^2 / m), where m is the median of
    the squared distances."""

    candidates = tuple(
        {"width": width, "ridge": ridge} for width in (1.0, 0.3, 2.0, 4.0) for ridge in (0.1, 0.01, 0.03, 0.3)
    )

    def fits(self, images: int, classes: int) -> bool:
        return images <= MAX_IMAGES

    def logits(self, training: TrainingSet, features: np.ndarray) -> np.ndarray:
        distances, between = squared_distances(features - training.mean, _centre(training)), _distances(training)
        median, logits = _median(between), []
        for width, coefficients in _solutions(training, between, self.candidates):
            kernel = np.exp(-width / median * distances)
            logits += [LOGIT_SCALE * (kernel @ each + training.priors) for each in coefficients]
        return np.stack(logits)

    def fit(self, training: TrainingSet, settings: Settings) -> Tensors:
        between = _distances(training)
        _, (coefficients,) = next(_solutions(training, between, [settings]))
        gamma = settings["width"] / _median(between)
        tensors = {"mean": training.mean, "support": _centre(training), "gamma": np.array(gamma)}
        tensors |= {"weight": LOGIT_SCALE * coefficients.T, "bias": LOGIT_SCALE * training.priors}
        return {name: value.astype(np.float32) for name, value in tensors.items()}


def _solutions(
    training: TrainingSet, distances: np.ndarray, candidates: Sequence[Settings]
) -> Iterator[tuple[float, list[np.ndarray]]]:
    """Each width, with the coefficients (N, C) of the candidates that have it, in their order. `distances`: squared,
    float (N, N), between the images."""
    median, roots = _median(distances), np.sqrt(training.weights)[:, None]
    targets = roots * (training.one_hot - training.priors)
    for width in dict.fromkeys(settings["width"] for settings in candidates):
        kernel = np.exp(-width / median * distances)
        kernel *= roots * roots.T
        ridges = [settings["ridge"] for settings in candidates if settings["width"] == width]
        yield width, [roots * _solution(kernel, ridge, targets) for ridge in ridges]


def _solution(kernel: np.ndarray, ridge: float, targets: np.ndarray) -> np.ndarray:
    """(kernel + ridge I)^-1 targets, float (N, C), by Cholesky's decomposition: a tenth of the time of the eigenvectors
    that would serve every ridge."""
    from scipy.linalg import cho_factor, cho_solve  # here: `predict` needs the distances only, in two processes

    system = kernel.copy(order="F")
    system.flat[:: len(system) + 1] += ridge
    factor = cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
    solution: np.ndarray = cho_solve(factor, targets, check_finite=False)
    return solution


def _centre(training: TrainingSet) -> np.ndarray:
    """Features minus their mean, (N, F): distances are the same, and better in float32."""
    return training.features - training.mean


def _distances(training: TrainingSet) -> np.ndarray:
    """Squared distances float (N, N) between the images."""
    centred = _centre(training)
    return squared_distances(centred, centred)


def _median(distances: np.ndarray) -> float:
    """Median squared distance between two images."""
    between = distances[~np.eye(len(distances), dtype=bool)]
    return float(np.median(between)) or 1.0 if len(between) else 1.0


def squared_distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float (L, R) between vectors (L, F) and (R, F)."""
    return ((left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T).clip(0)


HEADS.register("kernel_ridge")(KernelRidge())
