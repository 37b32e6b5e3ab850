"""Regions of an image that are found again after cropping, framing or a change of perspective, and their descriptors.

A region is a square around a blob: an extremum in place and scale of differences of Gaussian-blurred thumbnails (Lowe
2004). Its descriptor holds the low frequencies of its content, brought into one of the eight mirrorings and rotations
by 90 degrees: in a cosine transform, mirroring only changes signs and rotating swaps the axes. The constants were
chosen with `python -m benchmarks.duplicates`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 40  # of the square thumbnail, pixels
MAX_REGIONS = 32  # of an image, the strongest
SIGMAS = 2 ** (np.arange(9) / 3)  # of the blurs, pixels
RADIUS = 3.2  # half the side of a region, in sigmas of its blob
MIN_CONTRAST = 0.7  # of a blob, grey levels; noise of a JPEG file stays below it
OVERHANG = 0.05  # of a region's side may be outside the thumbnail
SAMPLES = 8  # of a region, per axis
FREQUENCIES = 6  # of the cosine transform, per axis
DIMENSIONS = FREQUENCIES**2
MIN_WEIGHT = 1e-18  # of a blur; the product of two is still a normal float32
SCALE = 127  # of a descriptor, which is stored as int8
TILE = 16  # thumbnails at a time, which fit the processor's cache

ACROSS, DOWN, SWAP = 1, 2, 4  # bits of a symmetry: mirrored left-right, upside down, then axes swapped


@dataclass(frozen=True)
class Regions:
    """M regions of images, sorted by image. Lengths are fractions of the image's sides."""

    image: np.ndarray
    """int32 (M,): the image's row."""
    x: np.ndarray
    """float32 (M,): the centre."""
    y: np.ndarray
    radius: np.ndarray
    """float32 (M,): half the side."""
    symmetry: np.ndarray
    """uint8 (M,): the symmetry that brings the content into the descriptor's form."""
    descriptor: np.ndarray
    """int8 (M, DIMENSIONS), of length SCALE, or less if the content is almost uniform."""


def find_regions(signatures: np.ndarray, start: int = 0) -> Regions:
    """The regions of thumbnails uint8 (N, SIDE * SIDE), whose rows are numbered from `start`."""
    parts = (
        _regions(signatures[first : first + TILE].reshape(-1, SIDE, SIDE).astype(np.float32), start + first)
        for first in range(0, len(signatures), TILE)
    )
    return concatenate(parts, len(signatures))


def concatenate(parts: Iterable[Regions], count: int) -> Regions:
    """The regions of `count` images from parts of them. Each part is freed before the next: all of them together would
    take as much memory again."""
    columns: list[np.ndarray] = []
    size = 0
    for part in parts:
        values = vars(part).values()
        # Memory is allocated for the most regions that there can be, and used as it is filled.
        columns = columns or [np.empty((count * MAX_REGIONS, *value.shape[1:]), value.dtype) for value in values]
        for column, value in zip(columns, values, strict=True):
            column[size : size + len(value)] = value
        size += len(part.image)
    return Regions(*(column[:size] for column in columns))


def blur_matrix(side: int, sigma: float) -> np.ndarray:
    """Matrix float32 (side, side) of a Gaussian blur along one axis.

    Weights below MIN_WEIGHT are 0. They are too small to change a sum, but a product with a subnormal number takes
    Intel's processors a hundred times as long.
    """
    weights = np.exp(-0.5 * (np.subtract.outer(np.arange(side), np.arange(side)) / sigma) ** 2)
    weights /= weights.sum(1, keepdims=True)
    return np.where(weights < MIN_WEIGHT, 0, weights).astype(np.float32)


_BLURS = np.stack([blur_matrix(SIDE, sigma) for sigma in SIGMAS])
_FREQUENCY = np.arange(FREQUENCIES)
_COSINES = (
    np.cos(np.pi * _FREQUENCY[:, None] * (np.arange(SAMPLES) + 0.5) / SAMPLES)
    * np.where(_FREQUENCY > 0, np.sqrt(2), 1)[:, None]
    / SAMPLES
)
_WEIGHT = np.hypot(_FREQUENCY[:, None], _FREQUENCY) ** 1.5  # images have weaker high frequencies
# float32 (SAMPLES * SAMPLES, DIMENSIONS): samples to weighted frequencies.
_TRANSFORM = (np.kron(_COSINES, _COSINES) * _WEIGHT.reshape(-1, 1)).T.astype(np.float32).copy()
_SIGN = np.where(_FREQUENCY % 2, -1, 1).astype(np.float32)


def _regions(thumbs: np.ndarray, start: int) -> Regions:
    """The regions of thumbnails float32 (N, SIDE, SIDE)."""
    count = len(thumbs)
    # Axes: level, y, image, x. So each blur is one matrix product of all thumbnails.
    lines = np.ascontiguousarray(thumbs.swapaxes(0, 1)).reshape(SIDE, -1)
    down = (_BLURS.reshape(-1, SIDE) @ lines).reshape(len(SIGMAS), -1, SIDE)
    blurred = (down @ _BLURS.swapaxes(1, 2)).reshape(len(SIGMAS), SIDE, count * SIDE)
    difference = blurred[1:] - blurred[:-1]
    level, row, y, x = _blobs(np.abs(difference))
    place = np.ravel_multi_index((level, y, row * SIDE + x), difference.shape)
    shift_x, shift_y = (_shift(difference.ravel(), place, step) for step in (1, count * SIDE))
    x, y, radius = x + shift_x, y + shift_y, (RADIUS * SIGMAS[level]).astype(np.float32)
    descriptor, symmetry = _describe(_sample(blurred, level, row, (x, y, radius)))
    x, y, radius = ((values / SIDE).astype(np.float32) for values in (x + 0.5, y + 0.5, radius))
    return Regions((row + start).astype(np.int32), x, y, radius, symmetry, descriptor)


def _blobs(magnitude: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Level, row, y and x int64 (M,) of the strongest maxima of each image, whose region is within it; the strongest of
    an image first. `magnitude`: float32 (levels, SIDE, N * SIDE)."""
    square = np.ones((3, 3), np.uint8)
    around = np.empty_like(magnitude)
    for level, largest in zip(magnitude, around, strict=True):
        cv2.dilate(level, square, dst=largest)
    peak = (magnitude == around) & (magnitude > MIN_CONTRAST)
    peak[1:] &= magnitude[1:] >= around[:-1]
    peak[:-1] &= magnitude[:-1] >= around[1:]
    level, y, column = np.unravel_index(np.flatnonzero(peak), peak.shape)
    row, x = np.divmod(column, SIDE)
    reach = (1 - 2 * OVERHANG) * RADIUS * SIGMAS[level]
    inside = (np.minimum(x, y) + 0.5 > reach) & (np.maximum(x, y) + 0.5 + reach < SIDE)
    level, row, y, x, column = level[inside], row[inside], y[inside], x[inside], column[inside]
    order = np.lexsort((-magnitude[level, y, column], row))
    level, row, y, x = level[order], row[order], y[order], x[order]
    strong = np.arange(len(row)) - np.searchsorted(row, row) < MAX_REGIONS
    return level[strong], row[strong], y[strong], x[strong]


def _shift(difference: np.ndarray, place: np.ndarray, step: int) -> np.ndarray:
    """The distance float32 (M,) of the extremum from the pixel `place` along the axis of stride `step`: the vertex of a
    parabola."""
    before, middle, after = (difference[place + offset] for offset in (-step, 0, step))
    curvature = before - 2 * middle + after
    flat = np.abs(curvature) < 1e-6
    return np.where(flat, 0, 0.5 * (before - after) / np.where(flat, 1, curvature)).clip(-0.5, 0.5)


def _sample(
    blurred: np.ndarray, level: np.ndarray, row: np.ndarray, place: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> np.ndarray:
    """SAMPLES x SAMPLES values of each region, float32 (M, SAMPLES * SAMPLES), of `blurred` float32 (levels, SIDE, N *
    SIDE). `place`: x, y and radius in pixels."""
    x, y, radius = place
    grid = ((np.arange(SAMPLES) + 0.5) / SAMPLES * 2 - 1).astype(np.float32)
    across, down = (
        (centre.astype(np.float32)[:, None] + grid * radius[:, None]).clip(0, SIDE - 1.001) for centre in (x, y)
    )
    left, top = across.astype(np.int32), down.astype(np.int32)
    right_weight, low_weight = (across - left)[:, None, :], (down - top)[:, :, None]
    stride = blurred.shape[2]
    line = (level[:, None] * SIDE + top) * stride + row[:, None] * SIDE
    corner = (line[:, :, None] + left[:, None, :]).astype(np.int64)
    values = blurred.reshape(-1)
    upper, lower = values.take(corner), values.take(corner + stride)
    upper += (values.take(corner + 1) - upper) * right_weight
    lower += (values.take(corner + stride + 1) - lower) * right_weight
    upper += (lower - upper) * low_weight
    return upper.reshape(-1, SAMPLES**2)


def _describe(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors int8 (M, DIMENSIONS) of regions float32 (M, SAMPLES * SAMPLES), and their symmetry uint8 (M,): the
    lowest frequencies are not negative, and the horizontal one is the larger."""
    spectrum = samples @ _TRANSFORM
    spectrum /= np.sqrt(np.einsum("mi,mi->m", spectrum, spectrum))[:, None] + 1  # + 1: noise of a JPEG file
    spectrum = spectrum.reshape(-1, FREQUENCIES, FREQUENCIES)
    across, down = spectrum[:, 0, 1], spectrum[:, 1, 0]
    mirrored, flipped, swapped = across < 0, down < 0, np.abs(down) > np.abs(across)
    signs = np.where(mirrored[:, None], _SIGN, 1)[:, None, :] * np.where(flipped[:, None], _SIGN, 1)[:, :, None]
    spectrum = spectrum * signs
    spectrum[swapped] = spectrum[swapped].swapaxes(1, 2)
    symmetry = (mirrored * ACROSS + flipped * DOWN + swapped * SWAP).astype(np.uint8)
    return (SCALE * spectrum.reshape(-1, DIMENSIONS)).round().astype(np.int8), symmetry
