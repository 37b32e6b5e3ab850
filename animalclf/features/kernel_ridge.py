"""Kernel ridge regression of the classes with a Gaussian kernel. Plain NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from animalclf.features.heads import HEADS, Settings, Tensors, TrainingSet

MAX_IMAGES = 5_000  # a kernel of 200 MB, decomposed five times a width
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
        distances, median = squared_distances(features - training.mean, _centre(training)), _median_distance(training)
        logits = []
        for width, coefficients in _solutions(training, self.candidates):
            kernel = np.exp(-width / median * distances)
            logits += [LOGIT_SCALE * (kernel @ each + training.priors) for each in coefficients]
        return np.stack(logits)

    def fit(self, training: TrainingSet, settings: Settings) -> Tensors:
        _, (coefficients,) = next(_solutions(training, [settings]))
        gamma = settings["width"] / _median_distance(training)
        tensors = {"mean": training.mean, "support": _centre(training), "gamma": np.array(gamma)}
        tensors |= {"weight": LOGIT_SCALE * coefficients.T, "bias": LOGIT_SCALE * training.priors}
        return {name: value.astype(np.float32) for name, value in tensors.items()}


def _solutions(training: TrainingSet, candidates: Sequence[Settings]) -> Iterator[tuple[float, list[np.ndarray]]]:
    """Each width, with the coefficients (N, C) of the candidates that have it, in their order."""
    distances, median = squared_distances(_centre(training), _centre(training)), _median_distance(training)
    roots = np.sqrt(training.weights)[:, None]
    targets = roots * (training.one_hot - training.priors)
    for width in dict.fromkeys(settings["width"] for settings in candidates):
        kernel = np.exp(-width / median * distances)
        values, vectors = np.linalg.eigh(roots * kernel * roots.T)
        values, rotated = values.clip(0), vectors.T @ targets
        ridges = [settings["ridge"] for settings in candidates if settings["width"] == width]
        yield width, [roots * (vectors @ (rotated / (values + ridge)[:, None])) for ridge in ridges]


def _centre(training: TrainingSet) -> np.ndarray:
    """Features minus their mean, (N, F): distances are the same, and better in float32."""
    return training.features - training.mean


def _median_distance(training: TrainingSet) -> float:
    """Median squared distance between two images."""
    distances = squared_distances(_centre(training), _centre(training))
    between = distances[~np.eye(len(distances), dtype=bool)]
    return float(np.median(between)) or 1.0 if len(between) else 1.0


def squared_distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float (L, R) between vectors (L, F) and (R, F)."""
    return ((left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T).clip(0)


HEADS.register("kernel_ridge")(KernelRidge())
