"""One pass over the stored images that a report is about: their brightness, and thumbnails for the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from animalclf.data.prepared_set import Prepared
from animalclf.report.thumbnails import iter_images

MAX_BYTES = 8e9  # of the pixels of a set; of a larger one there is no survey
TINY = 48  # pixels


@dataclass(frozen=True, eq=False)
class Survey:
    """Of N images."""

    brightness: np.ndarray
    """float64 (N,): the mean of an image, 0 to 1; nan for an image that is not stored."""
    tiny: np.ndarray
    """uint8 (N, TINY, TINY, 3): each image stretched to a square, RGB."""

    def part(self, rows: np.ndarray) -> Survey:
        """Of these rows, int64."""
        return Survey(self.brightness[rows], self.tiny[rows])

    @property
    def has_images(self) -> bool:
        return not bool(np.isnan(self.brightness).all())


def survey(prepared: Prepared | None, paths: Sequence[str]) -> Survey:
    """Of the images at these manifest paths."""
    number = {path: row for row, path in enumerate(paths)}
    result = Survey(np.full(len(paths), np.nan), np.zeros((len(paths), TINY, TINY, 3), np.uint8))
    if prepared is None or prepared.pixel_bytes > MAX_BYTES:
        return result
    for path, image in iter_images(prepared, paths):
        tiny = cv2.resize(image, (TINY, TINY), interpolation=cv2.INTER_AREA)
        result.tiny[number[path]] = tiny
        result.brightness[number[path]] = tiny.mean() / 255
    return result
