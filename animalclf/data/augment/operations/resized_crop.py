"""Random resized crops (Szegedy et al. 2014)."""

from __future__ import annotations

import numpy as np

from animalclf.config import Augment
from animalclf.data.augment.operation import OPERATIONS, Operation, Samples, Stream


@OPERATIONS.register("resized_crop")
class ResizedCrop(Operation):
    """Drawn as in torchvision, but a side that is longer than the image is shortened."""

    order = 20
    stream = Stream("crop", 4)

    def is_active(self, augment: Augment) -> bool:
        return augment.crop != (1.0, 1.0)

    def warp(self, samples: Samples) -> np.ndarray:
        min_area, max_area = samples.augment.crop
        # All uniform in 0 to 1: x and y are the position of the crop, 0 at the left and top edge, 1 at the others.
        area, log_ratio, x, y = samples.uniform(self.stream).T
        fraction, ratio = min_area + (max_area - min_area) * area, np.exp(np.log(4 / 3) * (2 * log_ratio - 1))
        width, height = np.minimum(np.sqrt(fraction * ratio), 1), np.minimum(np.sqrt(fraction / ratio), 1)
        affine = np.zeros((len(samples.index), 2, 3))
        # The pixels of the output cover the crop from edge to edge, as with align_corners=False.
        for axis, (side, position) in enumerate(((width, x), (height, y))):
            affine[:, axis, axis], affine[:, axis, 2] = side, (side - 1) / 2 + position * (1 - side) * samples.size
        return affine
