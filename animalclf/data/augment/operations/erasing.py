"""Random erasing (Zhong et al. 2017)."""

from __future__ import annotations

import numpy as np

from animalclf.config import Augment
from animalclf.data.augment.operation import OPERATIONS, Operation, Samples, Stream


@OPERATIONS.register("erasing")
class Erasing(Operation):
    order = 50
    stream = Stream("colr", 8, (3, 4, 5, 6, 7))  # color_jitter uses the first three

    def is_active(self, augment: Augment) -> bool:
        return bool(augment.erase)

    def erased_box(self, samples: Samples) -> np.ndarray:
        return erased_boxes(samples.augment.erase, samples.uniform(self.stream), samples.size)


def erased_boxes(probability: float, draws: np.ndarray, size: int) -> np.ndarray:
    """From uniform random numbers float64 (N, 5): boxes int64 (N, 4) of 2 to 33 % of the area and aspect ratio 1:3 to
    3:1, no larger than the image."""
    draw, area, log_ratio, x, y = draws.T
    ratio = np.exp(np.log(3) * (2 * log_ratio - 1))
    area = 0.02 + 0.31 * area
    width, height = np.round(size * np.sqrt(area * ratio)), np.round(size * np.sqrt(area / ratio))
    width, height = np.minimum(width, size), np.minimum(height, size)
    left, top = np.floor(x * (size - width + 1)), np.floor(y * (size - height + 1))
    box = np.stack([left, top, left + width, top + height], 1).astype(np.int64)
    box[draw >= probability] = 0
    return box
