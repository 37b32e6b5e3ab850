"""TrivialAugment "wide" (Mueller and Hutter 2021): one random operation of random strength for each image.

Without its equalize, autocontrast and sharpness, which need more than a pixel's own value.
"""

from __future__ import annotations

import numpy as np

from animalclf.config import Augment
from animalclf.data.augment.operation import OPERATIONS, Operation, Samples, Stream

# The position in this tuple is the number that is drawn: append only.
CHOICES = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "saturation", "contrast",
    "posterize", "solarize",
)  # fmt: skip
STREAM = Stream("triv", 2)


@OPERATIONS.register("trivial_augment")
class TrivialAugment(Operation):
    order = 30
    stream = STREAM

    def is_active(self, augment: Augment) -> bool:
        return augment.trivial

    def warp(self, samples: Samples) -> np.ndarray:
        """About the centre: shear up to 0.99, translation up to a seventh of the side (32 of 224 px), rotation up to
        135 degrees."""
        choice, strength = draw(samples)
        affine = np.tile(np.array([[1.0, 0, 0], [0, 1, 0]]), (len(choice), 1, 1))

        def strength_of(name: str) -> np.ndarray:
            return np.where(choice == CHOICES.index(name), strength, 0)

        theta = np.deg2rad(135 * strength_of("rotate"))
        affine[:, 0, 0] = affine[:, 1, 1] = np.cos(theta)
        affine[:, 0, 1] = -np.sin(theta) + 0.99 * strength_of("shear_x")
        affine[:, 1, 0] = np.sin(theta) + 0.99 * strength_of("shear_y")
        centre = np.full(2, (samples.size - 1) / 2)
        shift = np.stack([strength_of("translate_x"), strength_of("translate_y")], 1) * samples.size / 7
        affine[:, :, 2] = centre - affine[:, :, :2] @ centre + shift
        return affine

    def colour_factors(self, samples: Samples) -> np.ndarray:
        choice, strength = draw(samples)
        names = ("brightness", "contrast", "saturation")
        return np.stack([np.where(choice == CHOICES.index(name), 1 + 0.99 * strength, 1) for name in names], 1)

    def colour_table(self, samples: Samples) -> np.ndarray | None:
        choice, strength = draw(samples)
        is_posterized, is_solarized = ((choice == CHOICES.index(name))[:, None] for name in ("posterize", "solarize"))
        if not (is_posterized.any() or is_solarized.any()):
            return None
        values, strength = np.arange(256), np.abs(strength)
        bits = 8 - np.round(6 * strength).astype(np.int64)  # the 8 to 2 high bits that stay
        posterized = values & ~((1 << (8 - bits[:, None])) - 1)
        solarized = np.where(values >= 256 * (1 - strength[:, None]), 255 - values, values)
        return np.select([is_posterized, is_solarized], [posterized, solarized], values).astype(np.uint8)


def draw(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Each image's position in CHOICES, int64 (N,), and its signed strength in -1 to 1, float64 (N,)."""
    choice, strength = samples.uniform(STREAM).T
    return (choice * len(CHOICES)).astype(np.int64), 2 * strength - 1
