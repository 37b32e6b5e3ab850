"""Gaussian blur of random strength."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

from animalclf.config import Augment
from animalclf.data.augment.operation import OPERATIONS, Operation, Samples, Stream

if TYPE_CHECKING:
    import torch


@OPERATIONS.register("gaussian_blur")
class GaussianBlur(Operation):
    """The standard deviation is uniform between 0 and `augment.blur` pixels; pixels outside are mirrored about the
    border pixel."""

    stream = Stream("blur", 1)

    def is_active(self, augment: Augment) -> bool:
        return bool(augment.blur)

    def parameters(self, samples: Samples) -> np.ndarray:
        """The kernel of each image along one axis, float32 (N, K), K odd."""
        return gaussian_kernels(samples.augment.blur * samples.uniform(self.stream), 3 * samples.augment.blur)

    def apply_numpy(self, images: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        for image, kernel in zip(images, parameters, strict=True):
            cv2.sepFilter2D(image, -1, kernel, kernel, dst=image, borderType=cv2.BORDER_REFLECT_101)
        return images

    def apply_torch(self, images: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn import functional as F

        count, size, radius = len(images), images.shape[1], parameters.shape[1] // 2
        kernels = parameters.repeat_interleave(3, 0)[:, None]  # (3 N, 1, K): one for each channel of each image
        pixels = images.permute(0, 3, 1, 2).float()
        pixels = F.pad(pixels, (radius,) * 4, mode="reflect").reshape(1, 3 * count, size + 2 * radius, -1)
        pixels = F.conv2d(F.conv2d(pixels, kernels[:, :, None], groups=3 * count), kernels[..., None], groups=3 * count)
        return pixels.view(count, 3, size, size).permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8)


def gaussian_kernels(sigma: np.ndarray, reach: float) -> np.ndarray:
    """From standard deviations float64 (N, 1) in pixels: kernels float32 (N, 2 ceil(reach) + 1) of sum 1."""
    offset = np.arange(-math.ceil(reach), math.ceil(reach) + 1)
    weight = np.exp(-0.5 * (offset / np.maximum(sigma, 0.01)) ** 2)
    return (weight / weight.sum(1, keepdims=True)).astype(np.float32)
