"""The first stage of the search for duplicates: pairs of a part of one image and another whole image with similar low
frequencies.

A part is compared in all mirrorings and rotations by 90 degrees: in a cosine transform, mirroring only changes signs
and rotating swaps the axes. Large sets are clustered into cells of similar images, and a part is compared only with the
images of the cells closest to it (an inverted file: Sivic, Zisserman 2003). Each image is mirrored to fit its cell
best, which makes the cells narrower.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SIDE = 40  # of the square thumbnail, pixels
FREQUENCIES = 8  # of the cosine transform, per axis
# 1 in 1,000 unrelated pairs has at least this cosine similarity, and 99 % of the images cropped by 10 % on each side
# have it with their original.
MIN_SIMILARITY = 0.72
TILE = 512  # images whose parts are compared at a time
QUERY_BLOCK, IMAGE_BLOCK = 1024, 256  # parts and images of one matrix product, which fits the processor's cache
MAX_EXHAUSTIVE = 2048  # above this many images they are clustered, into sqrt(N) cells
# A part is compared with the cells whose similarity is this many standard deviations above the mean: one in forty. With
# 4,750 real photographs, modified in nineteen ways, among 20,000 others, that finds 99.8 % of the pairs that an
# exhaustive comparison finds, and at least 99.1 % for each modification.
CELL_DEVIATIONS = 2.0
CENTRE_BLOCK = 128  # cell centres compared with all parts of a tile at a time

# Parts of an image that identify cropped duplicates: edges as fractions (top, bottom, left, right), on whole pixels of
# the thumbnail. A crop is found when its edges are within about 5 % of those of a part.
_EDGES = ((0.075, 0.925), (0.0, 1.0), (0.0, 0.85), (0.15, 1.0))
PARTS = np.array([(*rows, *columns) for rows in _EDGES for columns in _EDGES], np.float32)
WHOLE, MIDDLE = 5, 0  # indices in PARTS
# The parts that are also compared rotated by 90 degrees; with all parts the search would take twice the time.
ROTATED = (MIDDLE, WHOLE)
QUERIES = [*range(len(PARTS)), *ROTATED]

# A mirroring is a number of two bits: 1 left-right, 2 upside down. MIRRORINGS: the signs of the frequencies for each
# mirroring, float32 (4, 64).
_SIGN = np.where(np.arange(FREQUENCIES) % 2, -1, 1).astype(np.float32)
MIRRORINGS = np.stack([np.outer(down, across).ravel() for down in (_SIGN**2, _SIGN) for across in (_SIGN**2, _SIGN)])
# The crop and the symmetry of each query in each mirroring. A symmetry is a number of three bits: 1 left-right, 2
# upside down, then 4 axes swapped.
_CROPS = np.repeat(QUERIES, 4)
_SYMMETRIES = np.array([*(0, 1, 2, 3) * len(PARTS), *(4, 6, 5, 7) * len(ROTATED)])


def spectra(
    signatures: np.ndarray, rows: tuple[tuple[float, float], ...], columns: tuple[tuple[float, float], ...]
) -> np.ndarray:
    """Low frequencies float32 (N, parts, 64) of parts of each image: all `rows` with all `columns` (low and high edge
    as fractions). `signatures`: uint8 (N, SIDE * SIDE). The vertical frequency is the first axis of the 64. The
    constant term is 0 and the length 1, or less if the part is almost uniform, so that it is similar to nothing."""
    wave = np.arange(FREQUENCIES)
    norm = np.where(wave > 0, np.sqrt(2), 1)
    # Natural images have weaker high frequencies.
    weight = (np.outer(norm, norm) * np.sqrt(np.hypot(wave[:, None], wave))).astype(np.float32)
    out = np.empty((len(signatures), len(rows) * len(columns), FREQUENCIES**2), np.float32)
    down, across = (np.concatenate([_cosines(*edge) for edge in edges]) for edges in (rows, columns))
    for start in range(0, len(signatures), TILE):
        thumbs = signatures[start : start + TILE].reshape(-1, SIDE, SIDE).astype(np.float32)
        transformed = (down @ thumbs @ across.T).reshape(-1, len(rows), FREQUENCIES, len(columns), FREQUENCIES)
        weighted = transformed.swapaxes(2, 3) * weight
        weighted /= np.linalg.norm(weighted, axis=(3, 4), keepdims=True) + 1
        out[start : start + TILE] = weighted.reshape(out[start : start + TILE].shape)
    return out


def whole_spectra(signatures: np.ndarray) -> np.ndarray:
    """Low frequencies of whole images, float32 (N, 64)."""
    return spectra(signatures, _EDGES[1:2], _EDGES[1:2])[:, 0]


def _cosines(low: float, high: float) -> np.ndarray:
    """float32 (FREQUENCIES, SIDE): cosine transform of the part from `low` to `high` of an axis."""
    pixel = (np.arange(SIDE) + 0.5) / SIDE
    inside = (pixel > low) & (pixel < high)
    waves = np.cos(np.pi * np.arange(FREQUENCIES)[:, None] * (pixel - low) / (high - low))
    return (waves * inside / inside.sum()).astype(np.float32)


def _queries(signatures: np.ndarray) -> np.ndarray:
    """Low frequencies of the QUERIES of each image: float32 (N * queries, 64)."""
    parts = spectra(signatures, _EDGES, _EDGES)
    rotated = parts[:, list(ROTATED)].reshape(len(parts), -1, FREQUENCIES, FREQUENCIES).swapaxes(2, 3)
    return np.concatenate([parts, rotated.reshape(len(parts), -1, FREQUENCIES**2)], 1).reshape(-1, FREQUENCIES**2)


@dataclass(frozen=True)
class Cells:
    """Spectra of whole images, clustered into K cells and mirrored to fit their cell best."""

    centres: np.ndarray
    """float32 (K * 4, 64): the centre of each cell in the four mirrorings."""
    edges: np.ndarray
    """int64 (K + 1,): the images of cell k are rows[edges[k]:edges[k + 1]]."""
    rows: np.ndarray
    """int64 (N,): the images, sorted by cell."""
    mirrorings: np.ndarray
    """int64 (N,): the mirroring of each image, in the order of `rows`."""
    spectra: np.ndarray
    """float32 (N, 64): the mirrored spectra, in the order of `rows`."""

    @classmethod
    def cluster(cls, whole: np.ndarray) -> Cells:
        """Cluster the spectra float32 (N, 64) of whole images; into one cell if all pairs are to be compared."""
        centres = _centres(whole, round(len(whole) ** 0.5) if len(whole) > MAX_EXHAUSTIVE else 1)
        cell, mirror = _nearest(whole, centres)
        rows = np.argsort(cell, kind="stable")
        edges = np.searchsorted(cell[rows], np.arange(len(centres) // 4 + 1))
        return cls(centres, edges, rows, mirror[rows], whole[rows] * MIRRORINGS[mirror[rows]])

    def probes(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cells to compare each of `queries` float32 (Q, 64) with: indices int64 (M,) of query and centre, sorted
        by centre."""
        mean = self.centres.mean(0)
        deviations = self.centres - mean
        variance = np.einsum("qi,qi->q", queries @ (deviations.T @ deviations / len(self.centres)), queries)
        threshold = queries @ mean + CELL_DEVIATIONS * np.sqrt(variance.clip(0))
        threshold = np.minimum(threshold, MIN_SIMILARITY)  # if most images are alike, no cell stands out
        if len(self.edges) == 2:
            threshold[:] = -np.inf
        threshold[np.linalg.norm(queries, axis=1) <= MIN_SIMILARITY] = np.inf  # almost uniform: similar to nothing
        flat = []
        for first in range(0, len(self.centres), CENTRE_BLOCK):
            above = self.centres[first : first + CENTRE_BLOCK] @ queries.T > threshold
            flat.append(np.flatnonzero(above) + first * len(queries))
        centre, query = np.divmod(np.concatenate(flat), len(queries))
        return query, centre


def _nearest(whole: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cell and the mirroring that fit each image best, int64 (N,)."""
    nearest = [(whole[start : start + TILE] @ centres.T).argmax(1) for start in range(0, len(whole), TILE)]
    cell, mirror = np.divmod(np.concatenate(nearest), 4)
    return cell, mirror


def _centres(whole: np.ndarray, count: int, rounds: int = 8) -> np.ndarray:
    """Centres of `count` cells in the four mirrorings, unit vectors float32 (count * 4, 64): spherical k-means of a
    sample."""
    random = np.random.default_rng(0)
    sample = whole[random.permutation(len(whole))[: 64 * count]]
    centres = sample[:count].copy()
    for _ in range(rounds):
        cell, mirror = _nearest(sample, _all_mirrorings(centres))
        order = np.argsort(cell, kind="stable")
        mirrored, edges = sample[order] * MIRRORINGS[mirror[order]], np.searchsorted(cell[order], np.arange(count + 1))
        for number, (begin, end) in enumerate(pairwise(edges)):
            centres[number] = mirrored[begin:end].sum(0) if begin < end else centres[number]
        centres /= np.linalg.norm(centres, axis=1, keepdims=True) + 1e-9
    return _all_mirrorings(centres)


def _all_mirrorings(spectra: np.ndarray) -> np.ndarray:
    """Spectra float32 (N, 64) in the four mirrorings, float32 (N * 4, 64)."""
    return (spectra[:, None] * MIRRORINGS).reshape(-1, FREQUENCIES**2)


def candidate_pairs(signatures: np.ndarray, start: int, cells: Cells) -> np.ndarray:
    """The images that are similar to a part of one of the TILE images from `start`: int64 (M, 4), rows of part and
    whole, and the crop and symmetry that make them most similar."""
    queries = _queries(signatures[start : start + TILE])
    variants = 4 * len(QUERIES)  # of an image: each query in each mirroring
    query, centre = cells.probes(queries)
    mirrored = _all_mirrorings(queries)
    row = query * 4 + centre % 4
    bounds = np.searchsorted(centre, 4 * np.arange(len(cells.edges)))
    buffer = np.empty(QUERY_BLOCK * IMAGE_BLOCK, np.float32)
    best = [np.empty((0, 3))]
    for cell_rows, cell_probes in zip(pairwise(cells.edges), pairwise(bounds), strict=True):
        for first in range(*cell_rows, IMAGE_BLOCK):
            images = slice(first, min(first + IMAGE_BLOCK, cell_rows[1]))
            hits = []
            for begin in range(*cell_probes, QUERY_BLOCK):
                probes = slice(begin, min(begin + QUERY_BLOCK, cell_probes[1]))
                probe, image, similarity = _similar(mirrored[row[probes]], cells.spectra[images], buffer)
                if not len(probe):
                    continue
                # The part is mirrored to match the centre, and the whole image to match its cell.
                mirroring = centre[probes][probe] % 4 ^ cells.mirrorings[images][image]
                variant = query[probes][probe] * 4 + mirroring
                hits.append(np.stack([variant, cells.rows[images][image], similarity], 1))
            if hits:
                best.append(_most_similar(np.concatenate(hits), variants))
    variant, whole = np.concatenate(best)[:, :2].astype(np.int64).T
    part, variant = np.divmod(variant, variants)
    distinct = part + start != whole
    return np.stack([part + start, whole, _CROPS[variant], _SYMMETRIES[variant]], 1)[distinct]


def _similar(queries: np.ndarray, images: np.ndarray, buffer: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The similar pairs of `queries` float32 (Q, 64) and `images` float32 (I, 64): their indices int64 (H,), and their
    cosine similarity float32 (H,). `buffer` float32 of at least Q * I elements holds the intermediate result."""
    out = buffer[: len(queries) * len(images)]
    np.matmul(queries, images.T, out=out.reshape(len(queries), -1))
    hit = np.flatnonzero(out > MIN_SIMILARITY)
    query, image = np.divmod(hit, len(images))
    return query, image, out[hit]


def _most_similar(hits: np.ndarray, variants: int) -> np.ndarray:
    """The most similar variant for each image and whole, of hits float64 (M, 3): variant, whole, similarity. Each image
    has `variants` of them."""
    variant, whole, similarity = hits.T
    image, variant = np.divmod(variant, variants)
    hits = hits[np.lexsort((variant, -similarity, whole, image))]
    pair = np.stack([hits[:, 0] // variants, hits[:, 1]], 1)
    return hits[np.append(True, (pair[1:] != pair[:-1]).any(1))]
