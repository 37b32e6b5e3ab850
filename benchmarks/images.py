"""Folders of images for the benchmarks."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from animalclf.demo import dataset

CLASSES = 10


def write_noise(folder: str, count: int) -> str:
    """Write `count` images of smooth noise as folder/<class>/<number>.jpg: JPEG of 300 x 225, as the reference
    notebook's images, about 25 kB each. Returns `folder`."""
    for label in range(CLASSES):
        os.makedirs(f"{folder}/class{label}", exist_ok=True)

    def write(number: int) -> None:
        generator = np.random.default_rng(number)
        coarse = generator.integers(0, 256, (12, 16, 3), np.uint8)
        smooth = cv2.resize(coarse, (300, 225), interpolation=cv2.INTER_CUBIC)
        image = cv2.add(smooth, generator.integers(0, 24, (225, 300, 3), np.uint8))
        cv2.imwrite(f"{folder}/class{number % CLASSES}/{number:07d}.jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, range(count)))
    return folder


def write_demo(folder: str, count: int) -> str:
    """Write the demo set with `count` training images and 10 test images. Returns `folder`."""
    dataset.write_demo(folder, images=count, test_images=10)
    return folder
