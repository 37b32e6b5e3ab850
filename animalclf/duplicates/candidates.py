"""The first stage of the search for duplicates: which parts of images are as like others, at low frequencies, as duplicates are.

A part, mirrored and turned in all ways, is compared with whole pictures: of a cosine transform, mirroring only changes signs and turning by 90
degrees swaps the axes. Large sets are sorted into cells of pictures that are like one another, and a part is compared with the pictures of the cells
that are most like it (an inverted file: Sivic, Zisserman 2003). Pictures are mirrored so that they suit their cell best, which makes cells narrower.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SIDE = 40  # of the thumbnail, pixels
FREQUENCIES = 8
LIKELY = 0.72  # about 1 in 1,000 pictures is as like another by chance; 99 % of the pictures cropped by 10 % a side are more like theirs
TILE = 512  # pictures whose parts are compared at a time
SLICE, WIDTH = (
    1024,
    256,
)  # so many parts are compared with so many pictures of a cell at a time: all of it stays in the processor's cache
EXACT = 2048  # up to so many pictures, all are compared with all; more are sorted into as many cells as the square root of their number
# A part is compared with the cells that are more like it than the mean by so many standard deviations, one in forty. Of 4,750 real photographs
# modified in nineteen ways, among 20,000 others, that keeps 99.8 % of the pairs that comparing with all finds, and 99.1 % of those of each way.
ABOVE = 2.0
CENTRES = 128  # compared with all parts of a tile at a time

# Parts of a picture (edges as shares: top, bottom, left, right) by which cropped duplicates are known. Edges lie on whole pixels of the thumbnail.
# A crop is recognised when its edges are within about 5 % of one of these.
_EDGES = ((0.075, 0.925), (0.0, 1.0), (0.0, 0.85), (0.15, 1.0))
PARTS = np.array([(*rows, *columns) for rows in _EDGES for columns in _EDGES], np.float32)
WHOLE, MIDDLE = 5, 0  # places in PARTS
QUERIES = [
    *range(len(PARTS)),
    MIDDLE,
    WHOLE,
]  # the last two turned by 90 degrees; of all parts it would take twice the time

# Mirroring: bit 1 across, bit 2 down; done twice it is undone. In the order of its number, the signs that it gives to the frequencies.
_SIGN = np.where(np.arange(FREQUENCIES) % 2, -1, 1).astype(np.float32)
MIRRORED = np.stack([np.outer(down, across).ravel() for down in (_SIGN**2, _SIGN) for across in (_SIGN**2, _SIGN)])
# What a hit means, by query and mirroring. Symmetries: 4 axes swapped, after 2 flipped down + 1 across (mirroring comes after the swap).
_CROPS = np.repeat(QUERIES, 4)
_SYMMETRIES = np.array([*(0, 1, 2, 3) * len(PARTS), *(4, 6, 5, 7) * 2])


def spectra(
    signatures: np.ndarray, rows: tuple[tuple[float, float], ...], columns: tuple[tuple[float, float], ...]
) -> np.ndarray:
    """Low frequencies of the parts of each picture between these edges, all `rows` with all `columns`: float32 (N, parts, 64), waves down then
    across. They have no mean and length 1 (less where hardly anything varies, which is like nothing then)."""
    wave = np.arange(FREQUENCIES)
    norm = np.where(wave > 0, np.sqrt(2), 1)
    # Pictures have less of the higher waves, which tell more.
    weight = (np.outer(norm, norm) * np.sqrt(np.hypot(wave[:, None], wave))).astype(np.float32)
    out = np.empty((len(signatures), len(rows) * len(columns), FREQUENCIES**2), np.float32)
    down, across = (np.concatenate([_cosines(*each) for each in edges]) for edges in (rows, columns))
    for start in range(0, len(signatures), TILE):
        thumbs = signatures[start : start + TILE].reshape(-1, SIDE, SIDE).astype(np.float32)
        found = (down @ thumbs @ across.T).reshape(-1, len(rows), FREQUENCIES, len(columns), FREQUENCIES).swapaxes(
            2, 3
        ) * weight
        found /= np.linalg.norm(found, axis=(3, 4), keepdims=True) + 1
        out[start : start + TILE] = found.reshape(out[start : start + TILE].shape)
    return out


def wholes(signatures: np.ndarray) -> np.ndarray:
    """Low frequencies of whole pictures, float32 (N, 64)."""
    return spectra(signatures, _EDGES[1:2], _EDGES[1:2])[:, 0]


def _cosines(low: float, high: float) -> np.ndarray:
    """float32 (FREQUENCIES, SIDE): cosine transform of the part low..high of an axis."""
    place = (np.arange(SIDE) + 0.5) / SIDE
    inside = (place > low) & (place < high)
    return (
        np.cos(np.pi * np.arange(FREQUENCIES)[:, None] * (place - low) / (high - low)) * inside / inside.sum()
    ).astype(np.float32)


def _queries(signatures: np.ndarray) -> np.ndarray:
    """Low frequencies of the QUERIES of each picture: float32 (N * queries, 64)."""
    parts = spectra(signatures, _EDGES, _EDGES)
    turned = parts[:, QUERIES[len(PARTS) :]].reshape(len(parts), -1, FREQUENCIES, FREQUENCIES).swapaxes(2, 3)
    return np.concatenate([parts, turned.reshape(len(parts), -1, FREQUENCIES**2)], 1).reshape(-1, FREQUENCIES**2)


@dataclass(frozen=True)
class Cells:
    """Spectra of whole pictures, mirrored as suits their cell best and sorted into cells.

    `centres` float32 (K * 4, 64): the middle of each cell, mirrored in the four ways. Those of cell k are rows[edges[k]:edges[k + 1]], their
    mirroring is in `mirror`, and what they look like then in `sorted` float32 (N, 64).
    """

    centres: np.ndarray
    edges: np.ndarray
    rows: np.ndarray
    mirror: np.ndarray
    sorted: np.ndarray

    @classmethod
    def of(cls, whole: np.ndarray) -> Cells:
        centres = _centres(whole, round(len(whole) ** 0.5) if len(whole) > EXACT else 1)
        cell, mirror = _nearest(whole, centres)
        rows = np.argsort(cell, kind="stable")
        edges = np.searchsorted(cell[rows], np.arange(len(centres) // 4 + 1))
        return cls(centres, edges, rows, mirror[rows], whole[rows] * MIRRORED[mirror[rows]])

    def probed(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which centres each of `queries` float32 (Q, 64) is compared with the pictures of: query and centre int64 (M,), sorted by centre."""
        from_mean = self.centres - self.centres.mean(0)
        variance = np.einsum("qi,qi->q", queries @ (from_mean.T @ from_mean / len(self.centres)), queries)
        least = queries @ self.centres.mean(0) + ABOVE * np.sqrt(variance.clip(0))
        least = np.minimum(least, LIKELY)  # where most pictures are alike, no cell stands out
        if len(self.edges) == 2:
            least[:] = -np.inf
        least[np.linalg.norm(queries, axis=1) <= LIKELY] = np.inf  # what shows hardly anything is like nothing
        found = []
        for first in range(0, len(self.centres), CENTRES):
            found.append(
                np.flatnonzero(self.centres[first : first + CENTRES] @ queries.T > least) + first * len(queries)
            )
        centre, query = np.divmod(np.concatenate(found), len(queries))
        return query, centre


def _nearest(whole: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cell and the mirroring that suit each picture best, int64 (N,)."""
    nearest = [(whole[start : start + TILE] @ centres.T).argmax(1) for start in range(0, len(whole), TILE)]
    cell, mirror = np.divmod(np.concatenate(nearest), 4)
    return cell, mirror


def _centres(whole: np.ndarray, count: int, rounds: int = 8) -> np.ndarray:
    """Unit vectors float32 (count * 4, 64) in the middle of what is alike, mirrored in four ways: k-means of directions, on a sample."""
    random = np.random.default_rng(0)
    sample = whole[random.permutation(len(whole))[: 64 * count]]
    middle = sample[:count].copy()
    for _ in range(rounds):
        cell, mirror = _nearest(sample, _in_four_ways(middle))
        order = np.argsort(cell, kind="stable")
        suited, edges = sample[order] * MIRRORED[mirror[order]], np.searchsorted(cell[order], np.arange(count + 1))
        for number, (begin, end) in enumerate(pairwise(edges)):
            middle[number] = suited[begin:end].sum(0) if begin < end else middle[number]
        middle /= np.linalg.norm(middle, axis=1, keepdims=True) + 1e-9
    return _in_four_ways(middle)


def _in_four_ways(middle: np.ndarray) -> np.ndarray:
    return (middle[:, None] * MIRRORED).reshape(-1, FREQUENCIES**2)


def likely(signatures: np.ndarray, start: int, cells: Cells) -> np.ndarray:
    """Which pictures are like a part of one of the TILE pictures from `start`: int64 (M, 4), rows of part and whole, crop and symmetry that make
    them most alike."""
    queries, ways = _queries(signatures[start : start + TILE]), 4 * len(QUERIES)
    query, centre = cells.probed(queries)
    mirrored = (queries[:, None] * MIRRORED).reshape(-1, FREQUENCIES**2)
    row = query * 4 + centre % 4
    bounds = np.searchsorted(centre, 4 * np.arange(len(cells.edges)))
    room = np.empty(SLICE * WIDTH, np.float32)
    found = [np.empty((0, 3))]
    for rows, mine in zip(pairwise(cells.edges), pairwise(bounds), strict=True):
        for first in range(*rows, WIDTH):
            some_wholes, hits = slice(first, min(first + WIDTH, rows[1])), []
            for begin in range(*mine, SLICE):
                some = slice(begin, min(begin + SLICE, mine[1]))
                out = room[: (some.stop - begin) * (some_wholes.stop - first)].reshape(some.stop - begin, -1)
                likeness = np.matmul(mirrored[row[some]], cells.sorted[some_wholes].T, out=out)
                which, whole = np.divmod(hit := np.flatnonzero(likeness > LIKELY), likeness.shape[1])
                if len(hit):
                    mirror = centre[some][which] % 4 ^ cells.mirror[some_wholes][whole]
                    hits.append(
                        np.stack(
                            [
                                query[some][which] * 4 + mirror,
                                cells.rows[some_wholes][whole],
                                likeness.reshape(-1)[hit],
                            ],
                            1,
                        )
                    )
            if hits:
                found.append(_most_alike(np.concatenate(hits), ways))
    query, whole = np.concatenate(found)[:, :2].astype(np.int64).T
    part, way = np.divmod(query, ways)
    other = part + start != whole
    return np.stack([part + start, whole, _CROPS[way], _SYMMETRIES[way]], 1)[other]


def _most_alike(hits: np.ndarray, ways: int) -> np.ndarray:
    """Of hits float64 (M, 3) of query, whole and likeness the best for each part and whole; a part has so many `ways` as queries."""
    query, whole, likeness = hits.T
    part, way = np.divmod(query, ways)
    hits = hits[np.lexsort((way, -likeness, whole, part))]
    pair = np.stack([hits[:, 0] // ways, hits[:, 1]], 1)
    return hits[np.append(True, (pair[1:] != pair[:-1]).any(1))]
