"""Random brightness, contrast and saturation."""

from __future__ import annotations

import numpy as np

from animalclf.config import Augment
from animalclf.data.augment.operation import OPERATIONS, Operation, Samples


@OPERATIONS.register("color_jitter")
class ColorJitter(Operation):
    order = 40

    def is_active(self, augment: Augment) -> bool:
        return bool(augment.brightness or augment.contrast or augment.saturation)

    def color_factors(self, samples: Samples) -> np.ndarray:
        return jitter_factors(samples.augment, samples.uniform("colr", 8)[:, :3])  # the other five are for erasing


def jitter_factors(augment: Augment, draws: np.ndarray) -> np.ndarray:
    """From uniform random numbers float64 (N, 3): each factor is uniform in 1 plus or minus its strength, float64 (N, 3)."""
    return 1 + (2 * draws - 1) * np.array([augment.brightness, augment.contrast, augment.saturation])
