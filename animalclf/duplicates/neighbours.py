"""Nearest neighbours among unit vectors: an inverted file of cells (Sivic, Zisserman 2003).

The vectors are clustered into cells, about sqrt(M) of them, and each is compared with those of the two closest cells.
Time grows with M^1.5, at 70 operations each.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from itertools import pairwise

import numpy as np

MAX_EXHAUSTIVE = 4096  # vectors in one cell
CELLS = 1.0  # cells are this times sqrt(M)
PROBES = 2  # cells that a vector is compared with
SAMPLE, ROUNDS = 32, 4  # vectors a cell, and rounds, of the clustering
BLOCK = 1024  # vectors of one matrix product, which fits the processor's cache


def similar_pairs(
    vectors: np.ndarray,
    owner: np.ndarray,
    limits: tuple[float, int],
    pool: Executor,
    progress: Callable[[float], None],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The most similar `vectors` float16 (M, D) of each of them, of other owners (`owner`: int (M,)): rows int64 (P,),
    rows of the neighbours int64 (P,), and their cosine similarity float32 (P,). `limits`: the minimum similarity,
    and the maximum number of neighbours of a vector in each of PROBES cells."""
    if not len(vectors):
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    cells = 1 if len(vectors) <= MAX_EXHAUSTIVE else round(CELLS * len(vectors) ** 0.5)
    centres = _centres(vectors, cells)
    starts = range(0, len(vectors), BLOCK)
    nearest = np.concatenate(list(pool.map(lambda start: _nearest(vectors[start : start + BLOCK], centres), starts)))
    progress(0.3)
    members = np.argsort(nearest[:, 0], kind="stable")
    edges = np.searchsorted(nearest[members, 0], np.arange(cells + 1))
    probes = nearest.ravel()
    visits = np.argsort(probes, kind="stable")
    visit_edges = np.searchsorted(probes[visits], np.arange(cells + 1))
    visitors = visits // nearest.shape[1]

    def compare(cell: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        inside = members[edges[cell] : edges[cell + 1]]
        return _compare(vectors, owner, visitors[visit_edges[cell] : visit_edges[cell + 1]], inside, limits)

    hits = []
    for number, hit in enumerate(pool.map(compare, range(cells)), 1):
        hits.append(hit)
        progress(0.3 + 0.7 * number / cells)
    rows, others, similarity = (np.concatenate(part) for part in zip(*hits, strict=True))
    return rows, others, similarity


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
        similarity[rows, nearest[-1]] = -2
    return np.stack(nearest, 1).astype(np.int32)


def _compare(
    vectors: np.ndarray, owner: np.ndarray, queries: np.ndarray, inside: np.ndarray, limits: tuple[float, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `similar_pairs`, of the rows `queries` and `inside`."""
    min_similarity, count = limits
    cell, cell_owner = vectors[inside].astype(np.float32), owner[inside]
    rows, others, values = [], [], []
    for start in range(0, len(queries), BLOCK):
        query = queries[start : start + BLOCK]
        for first in range(0, len(inside), 4 * BLOCK):
            part = slice(first, first + 4 * BLOCK)
            similarity = vectors[query].astype(np.float32) @ cell[part].T
            row, column = np.divmod(np.flatnonzero(similarity > min_similarity), similarity.shape[1])
            if len(row) > 8 * count * len(query):  # similar scenes: a sort of all would take most of the time
                similarity[owner[query][:, None] == cell_owner[part]] = -1
                limit = min(count, similarity.shape[1])
                column = np.argpartition(-similarity, limit - 1, axis=1)[:, :limit].ravel()
                row = np.repeat(np.arange(len(query)), limit)
            value = similarity[row, column]
            valid = (owner[query][row] != cell_owner[part][column]) & (value > min_similarity)
            row, column, value = row[valid], column[valid], value[valid]
            order = np.argsort(row - value.astype(np.float64), kind="stable")
            row, column, value = row[order], column[order], value[order]
            best = np.arange(len(row)) - np.searchsorted(row, row) < count
            rows.append(query[row[best]])
            others.append(inside[part][column[best]])
            values.append(value[best])
    if not rows:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    return np.concatenate(rows), np.concatenate(others), np.concatenate(values)
