"""Class shares that differ between training and use: probabilities corrected for them (Saerens, Latinne, Decaestecker 2002). Plain numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import yaml

from animalclf.config import nearest, read
from animalclf.errors import UserError

Prior = (
    np.ndarray | Literal["train", "estimate"]
)  # class shares float64 (C,), those of the training, or found from the predictions themselves
_ROUNDING = 0.02  # given shares may miss a sum of 1 by so much: people write 0.33,0.33,0.33


def parse_prior(text: str, classes: Sequence[str], train_prior: Sequence[float] | None = None) -> Prior:
    """What `--prior` asks for: "train" (no change), "uniform", "estimate" (see `estimate`), shares as in "cane=0.2,gatto=0.8", or the path or
    s3:// URL of a YAML or JSON mapping of class names to shares.

    Raises UserError naming unknown and missing classes, a share that is none, a sum that is not 1, or (where `train_prior`, the shares in training,
    is given) a class that gets a share though the model saw no pictures of it.
    """
    if text == "train":
        return "train"
    if text == "estimate":
        return "estimate"
    shares = np.full(len(classes), 1 / len(classes)) if text == "uniform" else _shares(text, classes)
    trained = shares if train_prior is None else train_prior
    unseen = [name for name, had, wants in zip(classes, trained, shares, strict=True) if wants > 0 and had == 0]
    if unseen:
        raise UserError(
            f"prior {text}: the model saw no training pictures of {', '.join(unseen)}, so its share cannot be corrected; use --prior train"
        )
    return shares


def apply(probabilities: np.ndarray, train_prior: Sequence[float], prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, C) of a model trained under the class shares `train_prior`, as they are under `prior`; and those shares, float64 (C,).
    "train" gives the probabilities back untouched."""
    trained = np.asarray(train_prior, np.float64)
    if isinstance(prior, str) and prior == "train":
        return probabilities, trained
    target = estimate(probabilities, trained) if isinstance(prior, str) else prior
    return adjust(probabilities, trained, target), target


def adjust(probabilities: np.ndarray, train_prior: np.ndarray, target_prior: np.ndarray) -> np.ndarray:
    """p * target / train, made to sum to 1 again: probabilities (N, C) learned under one prior, as Bayes' rule has them under another.

    float32 (N, C), computed in float64. A class with a train share of 0 gets probability 0.
    """
    ratio = np.divide(target_prior, train_prior, out=np.zeros(len(train_prior)), where=np.asarray(train_prior) > 0)
    # The floor keeps a row whose whole probability lies on classes without a share: it falls back to the target prior.
    weighted = np.maximum(probabilities, 1e-30).astype(np.float64) * ratio
    return (weighted / weighted.sum(1, keepdims=True)).astype(np.float32)


def estimate(
    probabilities: np.ndarray, train_prior: np.ndarray, rounds: int = 1000, tolerance: float = 1e-7
) -> np.ndarray:
    """The class shares of the pictures themselves, float64 (C,), by expectation maximisation from their probabilities (N, C): correct for the
    shares, take the mean as the new shares, until they stay (Saerens et al. 2002, section 2.2). Wants calibrated probabilities and hundreds of
    pictures. Without pictures: the training's shares."""
    shares = np.array(train_prior, np.float64)
    for _ in range(rounds if len(probabilities) else 0):
        before, shares = shares, adjust(probabilities, train_prior, shares).mean(0, dtype=np.float64)
        if np.abs(shares - before).max() < tolerance:
            break
    return shares / shares.sum()


def _shares(text: str, classes: Sequence[str]) -> np.ndarray:
    # Every scalar stays text: a class may be called "no" or "1".
    given = read(text, "file of shares", yaml.BaseLoader) if text.endswith((".yaml", ".yml", ".json")) else _pairs(text)
    unknown, missing = [name for name in given if name not in classes], [name for name in classes if name not in given]
    if unknown:
        raise UserError(
            f"prior {text}: the model has no class {', '.join(map(repr, unknown))}{nearest(unknown[0], classes)}; its classes: {', '.join(classes)}"
        )
    if missing:
        raise UserError(
            f"prior {text}: no share for {', '.join(missing)}; every class needs one (0 for a class that cannot occur)"
        )
    shares = np.array([_share(given[name], name, text) for name in classes])
    if abs(shares.sum() - 1) > _ROUNDING:
        raise UserError(f"prior {text}: the shares sum to {shares.sum():.4g}, not to 1")
    return shares / shares.sum()


def _pairs(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in text.split(","):
        name, equals, share = (part.strip() for part in item.rpartition("="))
        if not equals or not name:
            raise UserError(
                f"prior {text}: write train, uniform, estimate, shares as in cane=0.2,gatto=0.8, or the path of a .yaml or .json file"
            )
        if name in pairs:
            raise UserError(f"prior {text}: {name} is named twice")
        pairs[name] = share
    return pairs


def _share(value: object, name: str, text: str) -> float:
    try:
        share = float(str(value))
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UserError(f"prior {text}: {name}: {value!r} is not a share from 0 to 1")
    return share
