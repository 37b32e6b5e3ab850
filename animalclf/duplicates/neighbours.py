"""Nearest neighbours among unit vectors: an inverted file of cells (Sivic, Zisserman 2003).

The vectors are clustered into cells, about sqrt(M) of them, and each is compared with those of the three closest cells.
Time grows with M^1.5, at 70 operations each. Memory does not grow with the number of neighbours: they are returned for
a range of vectors at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from animalclf.duplicates.regions import SCALE

MAX_EXHAUSTIVE = 4096  # vectors in one cell
CELLS = 1.0  # cells are this times sqrt(M)
PROBES = 3  # cells that a vector is compared with
PARTS = 2  # of a cell, with one neighbour of a vector in each
SAMPLE, ROUNDS = 32, 4  # vectors a cell, and rounds, of the clustering
BLOCK = 1024  # vectors of one matrix product, which fits the processor's cache
MAX_PRODUCT = 2**21  # similarities in memory at a time, in each thread
CELLS_A_TASK = 16


@dataclass(frozen=True)
class Index:
    """M vectors in K cells."""

    vectors: np.ndarray
    """int8 (M, D): SCALE times the unit vectors."""
    owner: np.ndarray
    """int32 (M,), sorted."""
    nearest: np.ndarray
    """int32 (M, PROBES): the closest cells of each vector, the closest first."""
    members: np.ndarray
    """int32 (M,): the vectors sorted by their closest cell, then by row."""
    edges: np.ndarray
    """int64 (K + 1,): those of cell k are members[edges[k] : edges[k + 1]]."""


def build_index(vectors: np.ndarray, owner: np.ndarray, pool: Executor) -> Index:
    """The index of vectors int8 (M, D), SCALE times the unit vectors, of the owners int32 (M,), which are sorted."""
    cells = 1 if len(vectors) <= MAX_EXHAUSTIVE else round(CELLS * len(vectors) ** 0.5)
    centres = _centres(vectors, cells)
    blocks = pool.map(lambda start: _nearest(vectors[start : start + BLOCK], centres), range(0, len(vectors), BLOCK))
    nearest = np.concatenate([np.empty((0, min(PROBES, cells)), np.int32), *blocks])
    members = np.argsort(nearest[:, 0], kind="stable").astype(np.int32)
    return Index(vectors, owner, nearest, members, np.searchsorted(nearest[members, 0], np.arange(cells + 1)))


def neighbours(index: Index, rows: range, min_similarity: float, pool: Executor) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of other owners that are the most similar to `rows`, by the cosine, in each of PARTS parts of PROBES
    cells, if it is at least `min_similarity`: rows int32 (P,), and rows of the neighbours int32 (P,)."""
    probes = index.nearest[rows.start : rows.stop].ravel()
    visits = np.argsort(probes, kind="stable")
    edges = np.searchsorted(probes[visits], np.arange(len(index.edges)))
    visitors = (visits // index.nearest.shape[1] + rows.start).astype(np.int32)

    def compare(first: int) -> list[tuple[np.ndarray, np.ndarray]]:
        return [
            hit
            for cell in range(first, min(first + CELLS_A_TASK, len(edges) - 1))
            for hit in _compare(index, visitors[edges[cell] : edges[cell + 1]], cell, min_similarity)
        ]

    empty = (np.empty(0, np.int32),) * 2
    hits = [empty, *(hit for part in pool.map(compare, range(0, len(edges) - 1, CELLS_A_TASK)) for hit in part)]
    own, others = (np.concatenate(part) for part in zip(*hits, strict=True))
    return own, others


def _compare(
    index: Index, queries: np.ndarray, cell: int, min_similarity: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """As `neighbours`, of the rows `queries` in one cell."""
    inside = index.members[index.edges[cell] : index.edges[cell + 1]]
    if not len(inside):
        return
    width = -(-len(inside) // PARTS)
    vectors = np.zeros((PARTS * width, index.vectors.shape[1]), np.float32)
    vectors[: len(inside)] = index.vectors[inside]
    vectors /= SCALE**2
    owner = index.owner[inside]
    size = max(1, min(BLOCK, MAX_PRODUCT // len(vectors)))
    for start in range(0, len(queries), size):
        query = queries[start : start + size]
        similarity = index.vectors[query].astype(np.float32) @ vectors.T
        own = index.owner[query]
        low, high = np.searchsorted(owner, own), np.searchsorted(owner, own, side="right")
        for offset in range((high - low).max()):
            masked = low + offset < high
            similarity[masked, (low + offset)[masked]] = -1
        parts = similarity.reshape(-1, width)
        column = parts.argmax(1)
        (hit,) = np.nonzero(parts[np.arange(len(parts)), column] > min_similarity)
        row, part = np.divmod(hit, PARTS)
        yield query[row], inside[part * width + column[hit]]


def _centres(vectors: np.ndarray, count: int) -> np.ndarray:
    """Centres of `count` cells, unit vectors float32 (count, D): spherical k-means of a sample."""
    sample = np.random.default_rng(0).permutation(len(vectors))[: SAMPLE * count]
    sample_vectors = vectors[np.sort(sample)].astype(np.float32)
    centres = sample_vectors[:: max(1, len(sample_vectors) // count)][:count].copy()
    for _ in range(ROUNDS if count > 1 else 0):
        cell = np.concatenate(
            [_nearest(part, centres)[:, 0] for part in np.array_split(sample_vectors, -(-len(sample_vectors) // BLOCK))]
        )
        order = np.argsort(cell, kind="stable")
        edges = np.searchsorted(cell[order], np.arange(count + 1))
        sorted_vectors = sample_vectors[order]
        for number, (begin, end) in enumerate(pairwise(edges)):
            centres[number] = sorted_vectors[begin:end].sum(0) if begin < end else centres[number]
        centres /= np.linalg.norm(centres, axis=1, keepdims=True) + 1e-9
    return centres


def _nearest(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The PROBES closest cells of each vector, int32 (N, PROBES), the closest first."""
    similarity = vectors.astype(np.float32) @ centres.T
    rows, nearest = np.arange(len(vectors)), []
    for _ in range(min(PROBES, len(centres))):
        nearest.append(similarity.argmax(1))
        similarity[rows, nearest[-1]] = -np.inf
    return np.stack(nearest, 1).astype(np.int32)
