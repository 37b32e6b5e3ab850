"""Which of some unlabelled images are new: no near-duplicates of labelled ones or of one another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import cv2
import numpy as np

from animalclf.config import Config
from animalclf.data.resize import decoded_side, stored_image
from animalclf.duplicates import find
from animalclf.duplicates.verification import LONG_SIDE
from animalclf.prepare.task import read_image
from animalclf.report.thumbnails import without_padding


def is_new(candidates: Sequence[np.ndarray], known: Sequence[np.ndarray]) -> np.ndarray:
    """Whether each candidate is no near-duplicate of a `known` image or of an earlier candidate, bool (N,). Images
    uint8 (H, W, 3) from `comparable`."""
    images = [*known, *candidates]
    digests = [hashlib.sha256(image.tobytes() + repr(image.shape).encode()).hexdigest() for image in images]
    signatures = np.array([find.signature(image) for image in images], np.uint8).reshape(len(images), find.SIDE**2)
    matches = find.find_duplicates(digests, signatures, lambda row: images[row])
    is_first = matches["representative"].to_numpy() == np.arange(len(images))
    return np.asarray(is_first[len(known) :])


def comparable(image: np.ndarray) -> np.ndarray:
    """A stored image uint8 (H, W, 3), without padding, as large as images are compared."""
    scale = LONG_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def read_comparable(root: str, path: str, config: Config) -> np.ndarray:
    """An image file in the form that `comparable` has of the prepared images of a run with this configuration."""
    data = config.data
    image = read_image(root, data.max_pixels, path, decoded_side(data.stored_size, data.resize))
    stored = stored_image(image, data.stored_size, data.resize)
    return comparable(without_padding(stored) if data.resize == "keep" else stored)
