"""Heads that are fitted in closed form, or to convergence, on the features of a frozen base. Plain NumPy and SciPy.

A head kind fits all of its candidate settings at once, because they share most of the work. To add one, register a
class with the attributes of `HeadKind` in a new module of this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from animalclf.utils.registry import Registry

Settings = Mapping[str, float]
Tensors = dict[str, np.ndarray]
ABSENT = -30.0  # logit of a class without images in the training part of a fold
TINY = 1e-30


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Features of labelled images, in which every class of `classes` occurs."""

    features: np.ndarray
    """float (N, F)."""
    labels: np.ndarray
    """Class numbers int64 (N,), from 0 to `classes` - 1."""
    weights: np.ndarray
    """Of the images, float (N,), with a mean of 1."""
    classes: int

    @cached_property
    def mean(self) -> np.ndarray:
        """Weighted mean of the features, float (F,)."""
        return self.weights @ self.features / self.weights.sum()

    @cached_property
    def scale(self) -> float:
        """Mean norm of the centred features."""
        return float(np.linalg.norm(self.features - self.mean, axis=1).mean()) or 1.0

    @cached_property
    def priors(self) -> np.ndarray:
        """Weighted class frequencies, float (C,)."""
        return np.bincount(self.labels, self.weights, self.classes) / self.weights.sum()

    @cached_property
    def one_hot(self) -> np.ndarray:
        """float (N, C)."""
        return np.eye(self.classes)[self.labels]

    def scaled(self, features: np.ndarray) -> np.ndarray:
        """Features float (M, F) minus the mean, divided by the scale."""
        centred = features - self.mean
        centred /= self.scale
        return centred

    @cached_property
    def span(self) -> tuple[np.ndarray, np.ndarray]:
        """The centred and scaled features along the principal axes of their own span, float (N, R), and these axes
        (F, R)."""
        centred = self.scaled(self.features)
        images, width = centred.shape
        values, vectors = np.linalg.eigh(centred.T @ centred if images > width else centred @ centred.T)
        used = values > values[-1] * 1e-9
        used[-1] = True  # one axis even if all images have the same features
        if images > width:
            return centred @ vectors[:, used], vectors[:, used]
        lengths = np.sqrt(values[used].clip(TINY))
        return vectors[:, used] * lengths, centred.T @ (vectors[:, used] / lengths)

    @cached_property
    def compact(self) -> TrainingSet:
        """The same images with the coordinates of `span` as their features: to a head that no rotation changes the
        same set, with fewer numbers."""
        return replace(self, features=self.span[0])

    def in_span(self, features: np.ndarray) -> np.ndarray:
        """Other features float (M, F) in the coordinates of `span`, (M, R)."""
        return self.scaled(features) @ self.span[1]

    def linear(self, weight: np.ndarray, bias: np.ndarray) -> Tensors:
        """Tensors of a dense layer of the features from one of the span: `weight` (R, C), `bias` (C,)."""
        full = self.span[1] @ weight / self.scale
        return {"weight": full.T.astype(np.float32), "bias": (bias - self.mean @ full).astype(np.float32)}


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head that is fitted on all training images, and its cross-validation results."""

    kind: str
    settings: Settings
    temperature: float
    tensors: Tensors
    log_probabilities: np.ndarray
    """Out of fold, float (N, C)."""
    log_loss: float
    """Weighted mean out of fold, at this temperature."""


class HeadKind(Protocol):
    """A kind of head."""

    candidates: Sequence[Settings]
    """What cross-validation chooses from; the first is the default if there is too little to choose by."""

    def fits(self, images: int, classes: int) -> bool:
        """Whether fitting on this many images and classes takes minutes at most."""
        ...

    def logits(self, training: TrainingSet, features: np.ndarray) -> np.ndarray:
        """Logits float (candidates, M, C) of other features (M, F), by each candidate fitted on `training`. Both may
        be rotated: logits must not depend on the axes."""
        ...

    def fit(self, training: TrainingSet, settings: Settings) -> Tensors:
        """The tensors of the module (models/fitted_heads.py) with these settings, float32."""
        ...


HEADS: Registry[HeadKind] = Registry("head", key="train.heads", package="animalclf.features", in_workers=True)
