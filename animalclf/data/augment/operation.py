"""Augmentation operations: what an operation contributes to the view of an image, its random numbers, and the registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from animalclf.config import Augment
from animalclf.utils.registry import Registry

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Samples:
    """The images of a batch in an epoch: everything that an operation's parameters depend on."""

    augment: Augment
    seed: int
    epoch: int
    index: np.ndarray
    """Manifest rows, int64 (N,)."""
    size: int
    """Side in pixels of the view, which is square."""

    def uniform(self, stream: str, draws: int) -> np.ndarray:
        """Random numbers in [0, 1), float64 (N, draws). `stream` (at most 8 ASCII letters) separates the operations' numbers."""
        return uniform(self.seed ^ int.from_bytes(stream.encode()), self.epoch, self.index, draws)


class Operation(ABC):
    """An operation, with the parts of the view that it contributes. Parts of all operations are composed, so that each image is warped once
    and its pixel values are mapped once; a part that is None contributes nothing.

    An operation that needs more than a warp, a color map and a box (a filter over neighboring pixels) gives `parameters` and the two
    forms `apply_numpy` and `apply_torch`, which run after all that, on whole batches.
    """

    order: ClassVar[int] = 100
    """Operations are composed by ascending order, then in the order of their registration."""

    @abstractmethod
    def is_active(self, augment: Augment) -> bool:
        """True where the settings ask for this operation."""

    def warp(self, samples: Samples) -> np.ndarray | None:
        """float64 (N, 2, 3): from a pixel (x, y, 1) of the warped square to its place (x, y) in the square before, both of `samples.size`
        pixels. Pixel centers are whole numbers."""
        return None

    def color_factors(self, samples: Samples) -> np.ndarray | None:
        """float64 (N, 3): factors of brightness, contrast and saturation; those of several operations are multiplied."""
        return None

    def color_table(self, samples: Samples) -> np.ndarray | None:
        """uint8 (N, 256): the new value of each value, after the factors."""
        return None

    def erased_box(self, samples: Samples) -> np.ndarray | None:
        """int64 (N, 4): left, top, right, bottom (exclusive) of a box that is painted gray; empty where nothing is."""
        return None

    def parameters(self, samples: Samples) -> np.ndarray | None:
        """(N, ...), float32 or int64: what the two forms below need to know of each image."""
        return None

    def apply_numpy(self, images: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """uint8 (N, S, S, 3) to uint8 (N, S, S, 3). May change `images` in place."""
        raise NotImplementedError(f"{type(self).__name__} has parameters and no NumPy form")

    def apply_torch(self, images: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        """As `apply_numpy`, with both tensors on the training device. Import torch within: input tasks load this module without it."""
        raise NotImplementedError(f"{type(self).__name__} has parameters and no torch form")


OPERATIONS: Registry[type[Operation]] = Registry("augmentation operation", package="animalclf.data.augment.operations")


def active_operations(augment: Augment) -> list[Operation]:
    """The operations that the settings ask for, in the order in which they are composed."""
    operations = (operation() for operation in OPERATIONS.entries().values())
    return sorted((each for each in operations if each.is_active(augment)), key=lambda each: each.order)


def uniform(seed: int, epoch: int, index: np.ndarray, draws: int) -> np.ndarray:
    """Random numbers in [0, 1), float64 (N, draws), each a pure function of (seed, epoch, index, draw): the SplitMix64 mixing function
    (Steele, Lea, Flood 2014) over a counter. An image gets the same numbers in any batch, on any worker, in any order."""
    with np.errstate(over="ignore"):
        key = _mix(_mix(np.array(seed & (2**64 - 1), np.uint64)) + np.uint64(epoch))
        counter = index.astype(np.uint64)[:, None] * np.uint64(draws) + np.arange(draws, dtype=np.uint64)
        return (_mix(counter ^ key) >> np.uint64(11)) * 2.0**-53


def _mix(z: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
