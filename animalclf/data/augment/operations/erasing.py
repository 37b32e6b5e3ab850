"""Random erasing (Zhong et al. 2017)."""

from __future__ import annotations

import numpy as np

from animalclf.config import Augment
from animalclf.data.augment.operation import OPERATIONS, Operation, Samples


@OPERATIONS.register("erasing")
class Erasing(Operation):
    order = 50

    def is_active(self, augment: Augment) -> bool:
        return bool(augment.erase)

    def erased_box(self, samples: Samples) -> np.ndarray:
        return erased_boxes(
            samples.augment.erase, samples.uniform("colr", 8)[:, 3:], samples.size
        )  # the first three are for color jitter


def erased_boxes(probability: float, draws: np.ndarray, size: int) -> np.ndarray:
    """From uniform random numbers float64 (N, 5): boxes int64 (N, 4) of 2 to 33 % of the area and 1:3 to 3:1, cut off at the image's edge."""
    hit, area, shape, x, y = draws.T
    ratio = np.exp(np.log(3) * (2 * shape - 1))
    area = 0.02 + 0.31 * area
    width, height = np.round(size * np.sqrt(area * ratio)), np.round(size * np.sqrt(area / ratio))
    width, height = np.minimum(width, size), np.minimum(height, size)
    left, top = np.floor(x * (size - width + 1)), np.floor(y * (size - height + 1))
    box = np.stack([left, top, left + width, top + height], 1).astype(np.int64)
    box[hit >= probability] = 0
    return box
