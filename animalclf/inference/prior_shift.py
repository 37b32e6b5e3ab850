"""Class priors that differ between training and use: the correction of probabilities (Saerens, Latinne, Decaestecker
2002). Plain NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from animalclf.config import nearest, read
from animalclf.errors import UserError

Prior = np.ndarray | Literal["train", "estimate"]
"""Class priors float64 (C,); those of the training; or those estimated from the predictions."""
_SUM_TOLERANCE = 0.02  # people write 0.33,0.33,0.33


def parse_prior(text: str, classes: Sequence[str], train_prior: Sequence[float] | None = None) -> Prior:
    """The value of `--prior`: "train" (no change), "uniform", "estimate" (see `estimate`), class priors as in
    "dog=0.2,cat=0.8", or the path or s3:// URL of a YAML or JSON mapping of class names to priors.

    Raises UserError naming unknown and missing classes, a prior that is no number from 0 to 1, a sum that is not 1, or,
    with the priors of the training `train_prior`, a class with a prior above 0 that has no training images.
    """
    if text == "train":
        return "train"
    if text == "estimate":
        return "estimate"
    priors = np.full(len(classes), 1 / len(classes)) if text == "uniform" else _parse_priors(text, classes)
    train = priors if train_prior is None else train_prior
    untrained = [name for name, before, after in zip(classes, train, priors, strict=True) if after > 0 and before == 0]
    if untrained:
        raise UserError(
            f"prior {text}: the model has no training images of {', '.join(untrained)}, so its prior cannot be "
            "corrected; use --prior train"
        )
    return priors


def apply(probabilities: np.ndarray, train_prior: Sequence[float], prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, C) of a model trained under `train_prior`, corrected for `prior`; and the class priors after
    the correction, float64 (C,). "train" returns the probabilities unchanged."""
    train = np.asarray(train_prior, np.float64)
    if isinstance(prior, str) and prior == "train":
        return probabilities, train
    target = estimate(probabilities, train) if isinstance(prior, str) else prior
    return adjust(probabilities, train, target), target


def adjust(probabilities: np.ndarray, train_prior: np.ndarray, target_prior: np.ndarray) -> np.ndarray:
    """p * target / train, normalised: probabilities (N, C) under one prior, by Bayes' rule under another.

    float32 (N, C), computed in float64. A class with a train prior of 0 gets probability 0.
    """
    ratio = np.divide(target_prior, train_prior, out=np.zeros(len(train_prior)), where=np.asarray(train_prior) > 0)
    # With the floor, a row whose whole probability is on classes with prior 0 becomes the target prior, and not NaN.
    weighted = np.maximum(probabilities, 1e-30).astype(np.float64) * ratio
    return (weighted / weighted.sum(1, keepdims=True)).astype(np.float32)


def estimate(
    probabilities: np.ndarray, train_prior: np.ndarray, max_steps: int = 1000, tolerance: float = 1e-7
) -> np.ndarray:
    """The class priors of the images, float64 (C,), from their probabilities (N, C), by expectation maximisation:
    correct for the priors, take the mean as the new priors, until they converge (Saerens et al. 2002, section 2.2).
    Needs calibrated probabilities and hundreds of images. Without images: the priors of the training."""
    priors = np.array(train_prior, np.float64)
    for _ in range(max_steps if len(probabilities) else 0):
        previous, priors = priors, adjust(probabilities, train_prior, priors).mean(0, dtype=np.float64)
        if np.abs(priors - previous).max() < tolerance:
            break
    return priors / priors.sum()


def transport(probabilities: np.ndarray, priors: np.ndarray, max_steps: int = 1000) -> np.ndarray:
    """Probabilities float32 (N, C) whose mean over the images is exactly `priors`, float64 (C,): the plan of optimal
    transport from the images to the classes with the cost -log p and an entropy of weight 1 (Cuturi 2013), by
    Sinkhorn's alternating scaling of columns and rows.

    Every image's probabilities then depend on the other images. It is right only if the class counts of these images
    are known, and does harm if they are not.
    """
    plan = np.maximum(probabilities, 1e-30).astype(np.float64)
    for _ in range(max_steps if len(plan) else 0):
        columns = plan.mean(0)
        if np.abs(columns - priors).max() < 1e-6:
            break
        plan *= np.divide(priors, columns, out=np.zeros_like(columns), where=columns > 0)
        plan /= plan.sum(1, keepdims=True)
    return plan.astype(np.float32)


def check_transport(prior: str) -> None:
    """Raise UserError unless the prior says how often each class occurs, which a transport needs."""
    if prior in ("train", "estimate"):
        raise UserError(
            f"--transport: needs the known class fractions of these images, not --prior {prior}; use --prior uniform "
            "for a balanced set, or name them (dog=0.2,cat=0.8)"
        )


def check_syntax(text: str) -> None:
    """Raise UserError if `text` is no prior for any list of classes."""
    if text not in ("train", "uniform", "estimate"):
        _read_priors(text)


def _read_priors(text: str) -> Mapping[str, object]:
    is_file = text.endswith((".yaml", ".yml", ".json"))
    return read(text, "file of class priors") if is_file else _parse_pairs(text)


def _parse_priors(text: str, classes: Sequence[str]) -> np.ndarray:
    mapping = _read_priors(text)
    unknown, missing = [name for name in mapping if name not in classes], [c for c in classes if c not in mapping]
    if unknown:
        raise UserError(
            f"prior {text}: the model has no class {', '.join(map(repr, unknown))}{nearest(unknown[0], classes)}; "
            f"its classes: {', '.join(classes)}"
        )
    if missing:
        names = ", ".join(missing)
        raise UserError(f"prior {text}: no prior for {names}; every class needs one (0 for a class that cannot occur)")
    priors = np.array([_parse_number(mapping[name], name, text) for name in classes])
    if abs(priors.sum() - 1) > _SUM_TOLERANCE:
        raise UserError(f"prior {text}: the priors sum to {priors.sum():.4g}, not to 1")
    return priors / priors.sum()


def _parse_pairs(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in text.split(","):
        name, equals, value = (part.strip() for part in item.rpartition("="))
        if not equals or not name:
            raise UserError(
                f"prior {text}: write train, uniform, estimate, class priors as in dog=0.2,cat=0.8, or the path of "
                "a .yaml or .json file"
            )
        if name in pairs:
            raise UserError(f"prior {text}: {name} is named twice")
        pairs[name] = value
    return pairs


def _parse_number(value: object, name: str, text: str) -> float:
    try:
        prior = float(str(value))
    except ValueError:
        prior = -1.0
    if not 0 <= prior <= 1:
        raise UserError(f"prior {text}: {name}: {value!r} is not a number from 0 to 1")
    return prior
