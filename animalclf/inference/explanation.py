"""An image, the class that a model sees in it, and the places that speak for this class. Plain NumPy and OpenCV."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 448  # pixels, at most, of the sides of `image`
GAP = 8  # pixels between two images
STRENGTH = 0.7  # of the colours, where the map is 1


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a model sees a class in an image."""

    class_name: str
    """The class that the map is of."""
    probability: float
    """Of `class_name`."""
    predicted: str
    """The most probable class."""
    image: np.ndarray
    """uint8 (H, W, 3) RGB, upright, at most 448 px wide and high."""
    heat_map: np.ndarray
    """float32 (H, W), 0 to 1: how much each place speaks for the class; all 0 if nothing does."""

    def __repr__(self) -> str:
        height, width = self.heat_map.shape
        return f"Explanation({self.class_name!r}, probability={self.probability:.4g}, {width} x {height} px)"

    @property
    def overlay(self) -> np.ndarray:
        """The image in grey under the map, uint8 (H, W, 3) RGB: orange and yellow where most speaks for the class."""
        levels = np.round(self.heat_map * 255).astype(np.uint8)
        colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[:, :, ::-1]
        grey = cv2.cvtColor(self.image, cv2.COLOR_RGB2GRAY)[:, :, None]
        weight = self.heat_map[:, :, None] * STRENGTH
        return np.round(grey * (1 - weight) + colours * weight).astype(np.uint8)

    @property
    def side_by_side(self) -> np.ndarray:
        """The image beside its overlay, uint8 (H, 2 W + 8, 3) RGB."""
        gap = np.full((len(self.image), GAP, 3), 255, np.uint8)
        return np.concatenate([self.image, gap, self.overlay], 1)

    def png(self) -> bytes:
        """`side_by_side` as a PNG file."""
        _, data = cv2.imencode(".png", np.ascontiguousarray(self.side_by_side[:, :, ::-1]))
        return data.tobytes()

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        return self.png()


def jpeg(image: np.ndarray, quality: int) -> bytes:
    """uint8 (H, W, 3) RGB as a JPEG file."""
    _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def normalized(evidence: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map of values from 0, float32 (h, w), as (height, width) with the largest value 1, or all 0."""
    fitted = cv2.resize(evidence, (width, height), interpolation=cv2.INTER_LINEAR)
    largest = float(fitted.max())
    return fitted / largest if largest > 0 else fitted
