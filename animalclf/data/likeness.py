"""The first stage of the search for copies: which parts of pictures are as like others, at low frequencies, as copies are.

A part, mirrored and turned in all ways, is compared with whole pictures: of a cosine transform, mirroring only changes signs and turning by 90
degrees swaps the axes. Large sets are sorted into cells of pictures that are like one another, and a part is compared with the pictures of the cells
that are most like it (an inverted file: Sivic, Zisserman 2003).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIDE = 40  # of the thumbnail, pixels
FREQUENCIES = 8
LIKELY = 0.72  # about 1 in 1,000 pictures is as like another by chance; 99 % of the pictures cropped by 10 % a side are more like theirs
TILE = 512  # pictures whose parts are compared at a time
SLICE, WIDTH = 1024, 256  # so many parts are compared with so many pictures of a cell at a time: all of it stays in the processor's cache
EXACT = 2048  # up to so many pictures, all are compared with all; more are sorted into as many cells as the square root of their number
# Cells that a part is compared with: as many as keep 99.5 % of what comparing with all of them finds, in 20,000 parts of real photographs.
FEWEST_CELLS, CELLS_A_CELL = 8, 1 / 64

# Parts of a picture (edges as shares: top, bottom, left, right) by which its cropped copies are known. Edges lie on whole pixels of the thumbnail.
# A crop is recognised when its edges are within about 5 % of one of these.
_EDGES = ((0.075, 0.925), (0.0, 1.0), (0.0, 0.85), (0.15, 1.0))
PARTS = np.array([(*rows, *columns) for rows in _EDGES for columns in _EDGES], np.float32)
WHOLE, MIDDLE = 5, 0  # places in PARTS


def _cosines(low: float, high: float) -> np.ndarray:
    """float32 (FREQUENCIES, SIDE): cosine transform of the part low..high of an axis."""
    place = (np.arange(SIDE) + 0.5) / SIDE
    inside = (place > low) & (place < high)
    return (np.cos(np.pi * np.arange(FREQUENCIES)[:, None] * (place - low) / (high - low)) * inside / inside.sum()).astype(np.float32)


def spectra(signatures: np.ndarray, first: int = 0, last: int = len(PARTS)) -> np.ndarray:
    """Low frequencies of the PARTS from `first` to `last` of each picture: float32 (N, parts, 64), waves down then across.

    They have no mean and length 1 (less where hardly anything varies, which is like nothing then).
    """
    wave = np.arange(FREQUENCIES)
    norm = np.where(wave > 0, np.sqrt(2), 1)
    # Pictures have less of the higher waves, which tell more.
    weight = (np.outer(norm, norm) * np.sqrt(np.hypot(wave[:, None], wave))).astype(np.float32)
    out = np.empty((len(signatures), last - first, FREQUENCIES**2), np.float32)
    down, across = (np.stack([_cosines(*edges) for edges in PARTS[first:last, axes]]) for axes in (slice(0, 2), slice(2, 4)))
    for start in range(0, len(signatures), TILE):
        thumbs = signatures[start : start + TILE].reshape(-1, 1, SIDE, SIDE).astype(np.float32)
        found = down @ thumbs @ across.swapaxes(1, 2) * weight
        found /= np.linalg.norm(found, axis=(2, 3), keepdims=True) + 1
        out[start : start + TILE] = found.reshape(len(thumbs), -1, FREQUENCIES**2)
    return out


def _turned(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectra (N, parts, 64) mirrored in four ways and, of what is whole or cropped evenly, turned by 90 degrees (of all it would take twice the
    time): float32 (N, ways, 64), and of each way the number of its part and its symmetry (4 axes swapped, after 2 flipped down + 1 across)."""
    sign = np.where(np.arange(FREQUENCIES) % 2, -1, 1).astype(np.float32)
    square = parts.reshape(*parts.shape[:2], FREQUENCIES, FREQUENCIES)
    flipped = np.stack([square, square * sign, square * sign[:, None], square * sign[:, None] * sign], 2)
    swapped = flipped[:, [MIDDLE, WHOLE]].swapaxes(3, 4)
    ways = np.concatenate([one.reshape(len(parts), -1, FREQUENCIES**2) for one in (flipped, swapped)], 1)
    crops = np.repeat([*range(len(PARTS)), MIDDLE, WHOLE], 4)
    return ways, crops, np.tile(np.arange(4), len(PARTS) + 2) + np.where(np.arange(len(crops)) < 4 * len(PARTS), 0, 4)


@dataclass(frozen=True)
class Cells:
    """Spectra of whole pictures, sorted into cells around centres float32 (K, 64); those of cell k are rows[edges[k]:edges[k + 1]], in `sorted`."""

    centres: np.ndarray
    edges: np.ndarray
    rows: np.ndarray
    sorted: np.ndarray

    @classmethod
    def of(cls, wholes: np.ndarray) -> Cells:
        count = round(len(wholes) ** 0.5) if len(wholes) > EXACT else 1
        centres = _centres(wholes, count)
        nearest = [(wholes[start : start + TILE] @ centres.T).argmax(1) for start in range(0, len(wholes), TILE)]
        cell = np.concatenate(nearest)
        rows = np.argsort(cell, kind="stable")
        return cls(centres, np.searchsorted(cell[rows], np.arange(count + 1)), rows, wholes[rows])


def _centres(vectors: np.ndarray, count: int, rounds: int = 8) -> np.ndarray:
    """Unit vectors float32 (count, K) in the middle of what is alike: k-means of directions, on a sample."""
    random = np.random.default_rng(0)
    sample = vectors[random.permutation(len(vectors))[: 64 * count]]
    centres = sample[:count].copy()
    for _ in range(rounds):
        nearest = (sample @ centres.T).argmax(1)
        for number in range(count):
            mine = sample[nearest == number]
            centres[number] = mine.sum(0) if len(mine) else centres[number]
        centres /= np.linalg.norm(centres, axis=1, keepdims=True) + 1e-9
    return centres


def likely(signatures: np.ndarray, start: int, cells: Cells) -> np.ndarray:
    """Which pictures are like a part of one of the TILE pictures from `start`: int64 (M, 4), rows of part and whole, crop and symmetry that make
    them most alike."""
    ways, crops, symmetries = _turned(spectra(signatures[start : start + TILE]))
    count, queries = len(cells.centres), ways.reshape(-1, ways.shape[-1])
    probes = probed(count)
    to_centres = queries @ cells.centres.T
    least = np.partition(to_centres, count - probes, axis=1)[:, count - probes, None]
    hopeful = np.linalg.norm(queries, axis=1)[:, None] > LIKELY  # what shows hardly anything is like nothing
    cell, query = np.nonzero(((to_centres >= least) & hopeful).T)
    bounds = np.searchsorted(cell, np.arange(count + 1))
    room = np.empty(SLICE * WIDTH, np.float32)
    found = [np.empty((0, 3))]
    for number in range(count):
        mine, rows = query[bounds[number] : bounds[number + 1]], slice(*cells.edges[number : number + 2])
        for first in range(rows.start, rows.stop, WIDTH):
            wholes, hits = cells.sorted[first : min(first + WIDTH, rows.stop)], [np.empty((0, 3))]
            for begin in range(0, len(mine), SLICE):
                some = mine[begin : begin + SLICE]
                likeness = np.matmul(queries[some], wholes.T, out=room[: len(some) * len(wholes)].reshape(len(some), -1))
                which, whole = np.divmod(hit := np.flatnonzero(likeness > LIKELY), len(wholes))
                if len(hit):
                    hits.append(np.stack([some[which], cells.rows[first + whole], likeness.reshape(-1)[hit]], 1))
            found.append(_most_alike(np.concatenate(hits), ways.shape[1]))
    query, whole = np.concatenate(found)[:, :2].astype(np.int64).T
    part, way = np.divmod(query, ways.shape[1])
    other = part + start != whole
    return np.stack([part + start, whole, crops[way], symmetries[way]], 1)[other]


def probed(count: int) -> int:
    """With how many of `count` cells a part is compared."""
    return min(count, FEWEST_CELLS + int(count * CELLS_A_CELL))


def _most_alike(hits: np.ndarray, ways: int) -> np.ndarray:
    """Of hits float64 (M, 3) of query, whole and likeness the best for each part and whole; a part has so many `ways` as queries."""
    if len(hits) < 2:
        return hits
    query, whole, likeness = hits.T
    part, way = np.divmod(query, ways)
    hits = hits[np.lexsort((way, -likeness, whole, part))]
    pair = np.stack([hits[:, 0] // ways, hits[:, 1]], 1)
    return hits[np.append(True, (pair[1:] != pair[:-1]).any(1))]
