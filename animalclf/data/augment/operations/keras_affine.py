"""Rotation, shift, zoom and horizontal flip, composed as Keras's ImageDataGenerator composes them."""

from __future__ import annotations

import numpy as np

from animalclf.config import Augment
from animalclf.data.augment.operation import OPERATIONS, Operation, Samples, Stream


@OPERATIONS.register("keras_affine")
class KerasAffine(Operation):
    """Rotation, then shift (fraction of the side), then zoom (x and y separately; the factor stretches the sampling
    grid, so below 1 zooms in), all about the centre, then the horizontal flip of the result."""

    order = 10
    stream = Stream("", 6)  # angle, shift and zoom in x and y, flip; a name would change its numbers

    def is_active(self, augment: Augment) -> bool:
        return bool(augment.rotation or augment.shift or augment.zoom != (1.0, 1.0) or augment.flip)

    def warp(self, samples: Samples) -> np.ndarray:
        augment, size = samples.augment, samples.size
        angle, shift_x, shift_y, zoom_x, zoom_y, flip = samples.uniform(self.stream).T
        low, high = augment.zoom
        theta = np.deg2rad((2 * angle - 1) * augment.rotation)
        mirror = np.where(augment.flip & (flip < 0.5), -1, 1)
        scale_x, scale_y = (low + (high - low) * zoom_x) * mirror, low + (high - low) * zoom_y
        cos, sin = np.cos(theta), np.sin(theta)
        linear = np.stack(
            [np.stack([cos * scale_x, -sin * scale_y], -1), np.stack([sin * scale_x, cos * scale_y], -1)], -2
        )
        dx, dy = (2 * shift_x - 1) * augment.shift * size, (2 * shift_y - 1) * augment.shift * size
        shift = np.stack([cos * dx - sin * dy, sin * dx + cos * dy], -1)
        centre = (size - 1) / 2
        offset = shift + centre - linear @ np.array([centre, centre])
        return np.concatenate([linear, offset[..., None]], -1)
