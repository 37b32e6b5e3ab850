"""Picture folders for the benchmarks: smooth noise as JPEG of 300 x 225, the size of the seed's pictures, drawn in a moment and each its own."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

CLASSES = 10


def draw(folder: str, count: int) -> str:
    """Write `count` pictures as folder/<class>/<number>.jpg, about 25 kB each, and return `folder`."""
    for label in range(CLASSES):
        os.makedirs(f"{folder}/class{label}", exist_ok=True)

    def one(number: int) -> None:
        generator = np.random.default_rng(number)
        smooth = cv2.resize(
            generator.integers(0, 256, (12, 16, 3), np.uint8), (300, 225), interpolation=cv2.INTER_CUBIC
        )
        image = cv2.add(smooth, generator.integers(0, 24, (225, 300, 3), np.uint8))
        cv2.imwrite(f"{folder}/class{number % CLASSES}/{number:07d}.jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, range(count)))
    return folder
