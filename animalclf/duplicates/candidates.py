"""The first stage of the search for duplicates: pairs of images whose thumbnails have similar regions in the same
arrangement.

Two matches of a pair of images agree if both place one image onto the other in the same symmetry, with about the same
scale and shift. The place that they give is improved and checked by the correlation of the thumbnails' detail there
(alignment.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from animalclf.duplicates.neighbours import Index, neighbours
from animalclf.duplicates.regions import ACROSS, DOWN, SWAP, Regions

MIN_SIMILARITY = 0.8  # of two regions, cosine
CHUNK = 16_384  # images whose matches are placed at a time
SEARCH = 4 * CHUNK  # images whose neighbours are searched at a time
MAX_SCALE_RATIO = 0.4  # between matches that agree, in octaves
MAX_DISTANCE = 0.12  # between the centres that they give, of the larger image's side
MAX_LAG = 8  # matches of a pair of images in one symmetry that are compared with each other
MIN_OVERLAP = 0.12  # of each image's area
# A pair with this number of matches that agree needs no check of its thumbnails' detail.
MIN_SUPPORT = 3


@dataclass(frozen=True)
class Placements:
    """P pairs of images, and where the first is in the second: its centre `x`, `y` and its size `scale`, as fractions
    of the second's sides, after `symmetry`."""

    first: np.ndarray
    """int64 (P,): rows, lower than `second`."""
    second: np.ndarray
    symmetry: np.ndarray
    """uint8 (P,): bits ACROSS and DOWN, then SWAP."""
    x: np.ndarray
    """float64 (P,)"""
    y: np.ndarray
    scale: np.ndarray
    support: np.ndarray
    """int64 (P,): the most matches that one match agrees with, itself included."""

    def take(self, rows: np.ndarray) -> Placements:
        return Placements(*(values[rows] for values in vars(self).values()))

    def mirrored(self) -> np.ndarray:
        """bool (P,): whether the symmetry is a mirroring and not a rotation."""
        return np.bitwise_count(self.symmetry) % 2 == 1


def chunk_matches(index: Index, count: int, pool: Executor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The matches of the regions in `index` of `count` images, rows int32 (M,) and int32 (M,): for each CHUNK of
    images all matches with the same or later images.

    The images are searched from the last to the first. So the matches of a chunk are complete when its own images have
    been searched, and those that wait for it are at most a quarter of all.
    """
    edges = np.searchsorted(index.owner, range(0, count + CHUNK, CHUNK))
    waiting: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in edges[1:]]
    stop = len(waiting)
    while stop:
        first = (stop - 1) * CHUNK // SEARCH * SEARCH // CHUNK
        a, b = neighbours(index, range(int(edges[first]), int(edges[stop])), MIN_SIMILARITY, pool)
        chunk = (index.owner[np.minimum(a, b)] // CHUNK).astype(np.uint16)
        order = np.argsort(chunk, kind="stable")
        cuts = np.searchsorted(chunk[order], np.arange(1, stop))
        for parts, rows in zip(waiting, np.split(order, cuts), strict=True):
            parts.append((a[rows], b[rows]))
        while stop > first:
            parts, stop = waiting.pop(), stop - 1
            a, b = (np.concatenate(part) for part in zip(*parts, strict=True))
            yield a, b


def placements(regions: Regions, a: np.ndarray, b: np.ndarray) -> Placements:
    """The pairs of images that at least two matches of `regions` support. `a`, `b`: rows int64 (M,) of regions that
    match. A pair can be placed in several ways."""
    a, b = _drop_single_matches(regions.image, a, b)
    images = np.int64(regions.image.max(initial=0) + 1)
    key = (regions.image[a].astype(np.int64) * images + regions.image[b]) * 8
    key += relative_symmetry(regions.symmetry[a], regions.symmetry[b])
    order = np.argsort(key, kind="stable")
    a, b, key = a[order], b[order], key[order]
    matches = _match_placements(regions, a, b)
    position = np.stack([matches.x, matches.y, np.log2(matches.scale)], 1)
    reach = MAX_DISTANCE * np.maximum(matches.scale, 1)
    total, support = position.copy(), matches.support.copy()
    for lag in range(1, MAX_LAG + 1):
        low, high = np.arange(len(key) - lag), np.arange(lag, len(key))
        apart = np.abs(position[high] - position[low])
        agree = (key[high] == key[low]) & (apart[:, 2] < MAX_SCALE_RATIO)
        agree &= (apart[:, :2].max(1, initial=0) < reach[low]) & (a[high] != a[low]) & (b[high] != b[low])
        low, high = low[agree], high[agree]
        for one, other in ((low, high), (high, low)):
            total[one] += position[other]
            support[one] += 1
    best = np.lexsort((np.arange(len(key)), -support, key))
    best = best[np.append(True, key[best][1:] != key[best][:-1])[: len(best)]]
    best = np.sort(best[support[best] >= 2])
    x, y, octave = (total[best] / support[best][:, None]).T
    return Placements(matches.first[best], matches.second[best], matches.symmetry[best], x, y, 2**octave, support[best])


def _drop_single_matches(image: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The matches, once each and with `a` < `b`, whose pair of images has another match: rows int64, sorted by pair of
    images.

    A match is one number, of its images and then its regions, so that a sort of numbers, which NumPy vectorises, brings
    the matches of a pair together.
    """
    start = np.searchsorted(image, np.arange(image.max(initial=-1) + 2))  # regions are sorted by image
    bits = int(np.diff(start).max(initial=0)).bit_length()  # of a region's number within its image
    low, high = np.minimum(a, b), np.maximum(a, b)
    first, second = image[low].astype(np.int64), image[high].astype(np.int64)
    match = (first * len(start) + second << 2 * bits) + (low - start[first] << bits) + (high - start[second])
    match.sort()
    match = match[np.append(True, np.diff(match) != 0)[: len(match)]]
    same = np.diff(match >> 2 * bits) == 0  # the pair of images as of the match before
    match = match[np.append(same, False)[: len(match)] | np.append(False, same)[: len(match)]]
    first, second = np.divmod(match >> 2 * bits, len(start))
    mask = (1 << bits) - 1
    return start[first] + (match >> bits & mask), start[second] + (match & mask)


def _match_placements(regions: Regions, a: np.ndarray, b: np.ndarray) -> Placements:
    """Where each match of regions `a` and `b` places the first image in the second."""
    symmetry = relative_symmetry(regions.symmetry[a], regions.symmetry[b])
    scale = regions.radius[b].astype(np.float64) / regions.radius[a]
    x, y = transform(symmetry, 0.5 - regions.x[a], 0.5 - regions.y[a])  # from the region to the image's centre
    first, second = regions.image[a].astype(np.int64), regions.image[b].astype(np.int64)
    x, y = regions.x[b] + scale * x, regions.y[b] + scale * y
    return Placements(first, second, symmetry, x, y, scale, np.ones(len(a), np.int64))


def relative_symmetry(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The symmetry uint8 (M,) that brings the content of a region to that of another, when `a` and `b` bring both into
    the same form."""
    exchanged = (b & ACROSS) << 1 | (b & DOWN) >> 1  # mirroring after swapped axes is mirroring the other axis before
    swap = (a ^ b) & SWAP
    return ((a ^ np.where(swap, exchanged, b)) & (ACROSS | DOWN) | swap).astype(np.uint8)


def transform(symmetry: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (M,) after a symmetry uint8 (M,)."""
    x, y = np.where(symmetry & ACROSS, -x, x), np.where(symmetry & DOWN, -y, y)
    swap = (symmetry & SWAP) > 0
    return np.where(swap, y, x), np.where(swap, x, y)


def overlap_edges(places: Placements) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The overlap of both images: edges float32 (P, 4) (top, bottom, left, right) in the first after its symmetry
    and in the second, and whether it is at least MIN_OVERLAP of both, bool (P,)."""
    centre = np.stack([places.y, places.x], 1)
    half = places.scale[:, None] / 2
    low, high = np.maximum(centre - half, 0), np.minimum(centre + half, 1)
    second = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], 1)
    centre, scale = np.repeat(centre, 2, 1), places.scale[:, None]
    first = (second - centre) / scale + 0.5
    areas = [(edges[:, 1] - edges[:, 0]).clip(0) * (edges[:, 3] - edges[:, 2]).clip(0) for edges in (first, second)]
    return first.astype(np.float32), second.astype(np.float32), np.minimum(*areas) >= MIN_OVERLAP
