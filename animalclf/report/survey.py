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
    """uint8 (N, TINY, TINY, 3): each image stretched to a square, RGB. Of a large set only of the rows `shown`."""
    shown: np.ndarray | None = None
    """int64 (K,), ascending; None: all."""

    def part(self, rows: np.ndarray) -> Survey:
        """Of these rows, int64, of those with `tiny`."""
        return Survey(self.brightness[rows], self.tiny[rows if self.shown is None else self.shown.searchsorted(rows)])

    @property
    def has_images(self) -> bool:
        return not bool(np.isnan(self.brightness).all())


def survey(prepared: Prepared | None, paths: Sequence[str], shown: np.ndarray | None = None) -> Survey:
    """Of the images at these manifest paths. `shown`: the rows with a thumbnail, int64 (K,) ascending; None: all."""
    tiles = {row: tile for tile, row in enumerate(range(len(paths)) if shown is None else shown.tolist())}
    result = Survey(np.full(len(paths), np.nan), np.zeros((len(tiles), TINY, TINY, 3), np.uint8), shown)
    if prepared is None or prepared.pixel_bytes > MAX_BYTES:
        return result
    number = {path: row for row, path in enumerate(paths)}
    for path, image in iter_images(prepared, paths):
        tiny, row = cv2.resize(image, (TINY, TINY), interpolation=cv2.INTER_AREA), number[path]
        if row in tiles:
            result.tiny[tiles[row]] = tiny
        result.brightness[row] = tiny.mean() / 255
    return result
