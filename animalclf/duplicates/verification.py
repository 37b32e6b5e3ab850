"""The third stage of the search for duplicates: the images themselves are compared.

Local features (RootSIFT: Lowe 2004; Arandjelovic, Zisserman 2012) of both images are matched, and a homography is
fitted to the matches (MAGSAC++: Barath et al. 2020). One image is then warped onto the other and compared block by
block: a frame or caption that the images have in common matches at the border, but not inside.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

LONG_SIDE = 256  # of the images compared, pixels; smaller ones are enlarged up to MAX_ENLARGED times
MAX_ENLARGED = 2
MAX_FEATURES = 400
FEATURE_CONTRAST = 0.02  # half of OpenCV's default: dark and smooth images have few features
MAX_RATIO = 0.85  # of the distances to the closest and second closest feature
MIN_MATCHES = 6
TOLERANCE = 5.0  # of the homography, pixels
BLOCKS = 16  # along the longer side
MIN_TEXTURE = 9.0  # variance of a block that is compared; below it is noise
MIN_BLOCK_CORRELATION = 0.6  # of a block that matches
MIN_BLOCKS = 8  # compared
MIN_AREA = 0.15  # of both images must be in the other one
INSIDE = 0.2  # of the overlap's sides, at each edge, are not its inside
MIN_CONTENT = 0.6  # of the blocks inside must match
QUEUE = 4096  # pairs that wait for the threads at a time
CACHED_IMAGES = 512  # whose features are in memory: about 150 MB

# The elements of a SIFT descriptor (4 x 4 cells of 8 directions) in the order of the mirrored image's.
_MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1, :, [0, 7, 6, 5, 4, 3, 2, 1]].ravel()


class Features(NamedTuple):
    grey: np.ndarray
    """uint8 (H, W)"""
    points: np.ndarray
    """float32 (K, 2): x and y, pixels."""
    descriptors: np.ndarray
    """float32 (K, 128), of length 1."""


class Verifier:
    """Compares images that `read_image` reads by their row: uint8 (H, W, 3) RGB. Threads may share it."""

    def __init__(self, read_image: Callable[[int], np.ndarray]) -> None:
        self._features = lru_cache(CACHED_IMAGES)(lambda row: features(read_image(row)))

    def contents(self, pairs: pd.DataFrame, pool: Executor) -> np.ndarray:
        """`content` of the columns `a`, `b` and `mirrored`, float64 (P,)."""
        columns = [pairs[name].tolist() for name in ("a", "b", "mirrored")]
        # The queue of the threads holds a part at a time: a task takes a kilobyte.
        parts = (slice(start, start + QUEUE) for start in range(0, len(pairs), QUEUE))
        return np.array(
            [value for part in parts for value in pool.map(self.content, *(column[part] for column in columns))]
        )

    def content(self, a: int, b: int, mirrored: bool) -> float:
        """The fraction of the content that two images share which matches, 0 if they share none."""
        first = self._features(a)
        return matching_content(mirror(first) if mirrored else first, self._features(b))


def features(image: np.ndarray) -> Features:
    """Features of an image uint8 (H, W, 3) RGB."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = min(MAX_ENLARGED, LONG_SIDE / max(grey.shape))
    size = tuple(max(1, round(side * scale)) for side in grey.shape[::-1])
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    local_contrast = cv2.createCLAHE(3, (4, 4)).apply(grey)  # dark images have few features otherwise
    detector = cv2.SIFT.create(nfeatures=MAX_FEATURES, contrastThreshold=FEATURE_CONTRAST)
    points, descriptors = detector.detectAndCompute(local_contrast, None)
    if descriptors is None:
        return Features(grey, np.empty((0, 2), np.float32), np.empty((0, 128), np.float32))
    descriptors = np.sqrt(descriptors / (descriptors.sum(1, keepdims=True) + 1e-6))
    return Features(grey, np.array([point.pt for point in points], np.float32), descriptors)


def mirror(original: Features) -> Features:
    """The features of the image mirrored left-right."""
    grey, points, descriptors = original
    return Features(
        np.ascontiguousarray(grey[:, ::-1]), points * (-1, 1) + (grey.shape[1] - 1, 0), descriptors[:, _MIRRORED]
    )


def matching_content(a: Features, b: Features) -> float:
    """The fraction of the textured blocks inside the overlap of two images that match, 0 if there is no plausible
    overlap."""
    if min(*a.grey.shape, *b.grey.shape) < BLOCKS:
        return 0.0
    rows, columns = _match(a.descriptors, b.descriptors)
    if len(rows) < MIN_MATCHES:
        return 0.0
    cv2.setRNGSeed(0)
    homography, inliers = cv2.findHomography(
        a.points[rows], b.points[columns], cv2.USAC_MAGSAC, TOLERANCE, maxIters=2000, confidence=0.999
    )
    if homography is None or inliers.sum() < MIN_MATCHES or not _is_plausible(homography, a.grey.shape):
        return 0.0
    return _compare(a.grey, b.grey, homography)


def _match(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `a` and `b` float32 (K, 128) that are the closest of each other, and clearly closer than the second."""
    if min(len(a), len(b)) < MIN_MATCHES:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    similarity = a @ b.T
    rows, columns = np.arange(len(a)), similarity.argmax(1)
    mutual = similarity.argmax(0)[columns] == rows
    closest = similarity[rows, columns]
    similarity[rows, columns] = -1
    clear = 1 - closest < MAX_RATIO**2 * (1 - similarity.max(1))
    return rows[mutual & clear], columns[mutual & clear]


def _is_plausible(homography: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether the corners of an image of `shape` stay a convex quadrangle of the same orientation, seen from in
    front."""
    height, width = shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]]) @ homography.T
    if (corners[:, 2] <= 0).any():
        return False
    points = corners[:, :2] / corners[:, 2:]
    edges = np.roll(points, -1, axis=0) - points
    following = np.roll(edges, -1, axis=0)
    return bool((edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0] > 0).all())


def _compare(a: np.ndarray, b: np.ndarray, homography: np.ndarray) -> float:
    """As `matching_content`, of grey images and the homography from `a` to `b`."""
    height, width = b.shape
    warped = cv2.warpPerspective(a, homography, (width, height))
    mask = cv2.warpPerspective(np.ones_like(a), homography, (width, height), flags=cv2.INTER_NEAREST)
    quadrangle = cv2.perspectiveTransform(
        np.array([[[0, 0], [a.shape[1], 0], [a.shape[1], a.shape[0]], [0, a.shape[0]]]], np.float32), homography
    )
    area = mask.sum() / max(mask.size, cv2.contourArea(quadrangle))
    if area < MIN_AREA:
        return 0.0
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    block = max(height, width) // BLOCKS
    down, across = (
        (np.arange(block // 2, side // block * block, block) - line[0]) / (line[-1] - line[0] + 1)
        for side, line in ((height, rows), (width, columns))
    )
    inside = ((np.abs(down - 0.5) < 0.5 - INSIDE)[:, None]) & (np.abs(across - 0.5) < 0.5 - INSIDE)
    first, second = (_blocks(cv2.GaussianBlur(image, (0, 0), 1.2).astype(np.float32), block) for image in (warped, b))
    whole = _blocks(mask.astype(np.float32), block).mean(2) > 0.95
    first, second = first - first.mean(2, keepdims=True), second - second.mean(2, keepdims=True)
    variance = [(blocks * blocks).mean(2) for blocks in (first, second)]
    textured = whole & (np.maximum(*variance) > MIN_TEXTURE)
    correlation = (first * second).mean(2) / np.sqrt((variance[0] + 0.5) * (variance[1] + 0.5))
    match = correlation > MIN_BLOCK_CORRELATION
    central = textured & inside
    if textured.sum() < MIN_BLOCKS or not central.any():
        return 0.0
    return float(min(match[central].mean(), match[textured].mean() + 0.1))


def _blocks(image: np.ndarray, block: int) -> np.ndarray:
    """The blocks (rows, columns, block * block) of an image (H, W), without incomplete ones."""
    height, width = (side // block for side in image.shape)
    cut = image[: height * block, : width * block].reshape(height, block, width, block)
    return cut.swapaxes(1, 2).reshape(height, width, block * block)
