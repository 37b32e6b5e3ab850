"""Images at their stored size. Preparation and prediction use the same functions, so that both see the same pixels."""

from __future__ import annotations

import math

import cv2
import numpy as np

from animalclf.utils.canvas import PADDING, SHORT_SIDE, sides_on_canvas

MIN_SIDE = 576
"""Shorter side in pixels to which `prepare` and prediction let `decode` reduce a large JPEG image: twice that of a
stored image of 288 px, or of 384 px with its shape kept."""


def decoded_side(size: int, resize_mode: str) -> int:
    """The least shorter side in pixels of images that are resized to the stored size `size`: MIN_SIDE, or twice the
    longest shorter side of a stored image. Stored sizes up to MIN_SIDE / 2 share the decoded pixels."""
    return max(MIN_SIDE, math.ceil(2 * size * (SHORT_SIDE if resize_mode == "keep" else 1)))


def stored_image(image: np.ndarray, size: int, resize_mode: str) -> np.ndarray:
    """uint8 (H, W, 3) as it is stored, uint8 (size, size, 3): stretched to the square (`resize_mode` "squash"), or with
    its shape kept ("keep") in the upper left of a canvas (utils/canvas.py)."""
    if resize_mode == "squash":
        return resize(image, size)
    height, width = sides_on_canvas(image.shape[0], image.shape[1], size)
    canvas = np.full((size, size, 3), PADDING, np.uint8)
    canvas[:height, :width] = _stretch(image, height, width)
    return canvas


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 (H, W, 3), reduced to at most `side` px wide and high, to look at."""
    scale = min(1.0, side / max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else image


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, 3) to uint8 (size, size, 3), or grey (H, W) to (size, size). Both sides are stretched to the square,
    as by Keras's target_size; area averaging if the image shrinks, cubic interpolation if it grows."""
    return _stretch(image, size, size)


def _stretch(image: np.ndarray, height: int, width: int) -> np.ndarray:
    old_height, old_width = image.shape[:2]
    if (old_height, old_width) == (height, width):
        return np.ascontiguousarray(image)
    if old_height < height or old_width < width:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    # OpenCV averages whole pixels much faster than fractions of pixels. So the image is first resized to the nearest
    # multiples of the new sides, which changes values by 0.2 of 255 on average.
    factor_y, factor_x = (
        max(2, round(old / new)) if old > new else 1 for old, new in ((old_height, height), (old_width, width))
    )
    multiple = cv2.resize(image, (factor_x * width, factor_y * height), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(multiple, (width, height), interpolation=cv2.INTER_AREA)
