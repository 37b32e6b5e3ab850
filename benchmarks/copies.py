"""How well copies are found: recall for each modification, pairs flagged among pictures that are taken to differ, and time.

    python -m benchmarks.copies --data PICTURES [--json FILE]
"""

from __future__ import annotations

from collections.abc import Callable
import cv2
import numpy as np

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """`image` through a JPEG file of `quality`."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def crop(image: np.ndarray, left: float, right: float, top: float, bottom: float) -> np.ndarray:
    """`image` without these shares of its width and height."""
    height, width = image.shape[:2]
    return image[round(top * height) : round((1 - bottom) * height), round(left * width) : round((1 - right) * width)]


def crop_anywhere(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """`image` without 2 x `share` of each side, cut at random from both ends."""
    left, top = rng.uniform(0, 2 * share, 2)
    return crop(image, left, 2 * share - left, top, 2 * share - top)


def gain(image: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(image * factor, 0, 255).round().astype(np.uint8)


CHANGES: dict[str, Change] = {
    "mirror": lambda image, rng: image[:, ::-1],
    "turn 90": lambda image, rng: np.rot90(image, 1),
    "turn 180": lambda image, rng: np.rot90(image, 2),
    "turn 270": lambda image, rng: np.rot90(image, 3),
    "recompress q=30": lambda image, rng: jpeg(image, 30),
    "resize to 50 %": lambda image, rng: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "crop 5 % a side": lambda image, rng: crop(image, 0.05, 0.05, 0.05, 0.05),
    "crop 5 %, off centre": lambda image, rng: crop_anywhere(image, 0.05, rng),
    "crop 10 % a side": lambda image, rng: crop(image, 0.1, 0.1, 0.1, 0.1),
    "crop 10 %, off centre": lambda image, rng: crop_anywhere(image, 0.1, rng),
    "brightness x 0.6": lambda image, rng: gain(image, 0.6),
    "brightness x 1.4": lambda image, rng: gain(image, 1.4),
    "contrast x 0.6": lambda image, rng: np.round(128 + 0.6 * (image - 128.0)).astype(np.uint8),
    "mirror, crop 5 %": lambda image, rng: crop_anywhere(image, 0.05, rng)[:, ::-1],
    "mirror, darken": lambda image, rng: gain(image[:, ::-1], 0.6),
    "turn 90, brighten": lambda image, rng: gain(np.rot90(image), 1.4),
    "crop 10 %, darken": lambda image, rng: gain(crop_anywhere(image, 0.1, rng), 0.6),
}
