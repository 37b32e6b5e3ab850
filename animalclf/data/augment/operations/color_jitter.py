"""Random brightness, contrast and saturation."""

from __future__ import annotations

import numpy as np

from animalclf.config import Augment
from animalclf.data.augment.operation import OPERATIONS, Operation, Samples, Stream


@OPERATIONS.register("color_jitter")
class ColorJitter(Operation):
    order = 40
    stream = Stream("colr", 8, (0, 1, 2))  # erasing uses the other five

    def is_active(self, augment: Augment) -> bool:
        return bool(augment.brightness or augment.contrast or augment.saturation)

    def colour_factors(self, samples: Samples) -> np.ndarray:
        return jitter_factors(samples.augment, samples.uniform(self.stream))


def jitter_factors(augment: Augment, draws: np.ndarray) -> np.ndarray:
    """From uniform random numbers float64 (N, 3): factors float64 (N, 3), uniform in 1 plus or minus their strength."""
    return 1 + (2 * draws - 1) * np.array([augment.brightness, augment.contrast, augment.saturation])
