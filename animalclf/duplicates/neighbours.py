"""Nearest neighbours among unit vectors: an inverted file of cells (Sivic, Zisserman 2003).

The vectors are clustered into cells, sqrt(M) of them in small sets and of MAX_CELL vectors each in large ones, and each
is compared with those of the three closest cells. The centres of many cells are in branches, about sqrt(cells) of them,
and a vector is compared with the centres in its closest branches only (a vocabulary tree of two levels: Nister,
Stewenius 2006). So the comparisons of a vector grow with M^0.25, which is little beside those in its cells. Memory does
not grow with the number of neighbours: they are returned for a range of vectors at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from animalclf.duplicates.regions import SCALE

MAX_EXHAUSTIVE = 4096  # vectors in one cell
MAX_CELL = 640  # vectors of a cell of a large set in the mean; more cells than this are in branches
PROBES = 3  # cells that a vector is compared with
PARTS = 2  # of a cell, with one neighbour of a vector in each
BRANCHES = 6  # in whose centres the cells of a vector are looked for
SAMPLE, ROUNDS = 32, 4  # vectors a cell, and rounds, of the clustering
BLOCK = 1024  # vectors of one matrix product, which fits the processor's cache
BRANCH_BLOCK = 2**16  # vectors of one search in the branches
MAX_PRODUCT = 2**21  # similarities in memory at a time, in each thread
CELLS_A_TASK = 16


@dataclass(frozen=True)
class Centres:
    """K centres of cells and B of branches, unit vectors."""

    cells: np.ndarray
    """float32 (K, D)"""
    branches: np.ndarray
    """float32 (B, D); one branch holds all cells of a small set."""
    edges: np.ndarray
    """int64 (B + 1,): the cells of branch b are cells[edges[b] : edges[b + 1]]."""


@dataclass(frozen=True)
class Index:
    """M vectors in K cells."""

    vectors: np.ndarray
    """int8 (M, D): SCALE times the unit vectors."""
    owner: np.ndarray
    """int32 (M,), sorted."""
    nearest: np.ndarray
    """uint16 or int32 (M, PROBES): the closest cells of each vector, the closest first."""
    members: np.ndarray
    """int32 (M,): the vectors sorted by their closest cell, then by row."""
    edges: np.ndarray
    """int64 (K + 1,): those of cell k are members[edges[k] : edges[k + 1]]."""


def build_index(vectors: np.ndarray, owner: np.ndarray, pool: Executor) -> Index:
    """The index of vectors int8 (M, D), SCALE times the unit vectors, of the owners int32 (M,), which are sorted."""
    centres = _find_centres(vectors, pool)
    cells = int(centres.edges[-1])
    nearest = np.empty((len(vectors), min(PROBES, cells)), np.uint16 if cells <= 2**16 else np.int32)
    block = BLOCK if len(centres.branches) == 1 else BRANCH_BLOCK

    def fill(start: int) -> None:
        nearest[start : start + block] = _nearest(vectors[start : start + block], centres)

    list(pool.map(fill, range(0, len(vectors), block)))
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


def _find_centres(vectors: np.ndarray, pool: Executor) -> Centres:
    """The centres of the cells of vectors int8 (M, D)."""
    cells = 1 if len(vectors) <= MAX_EXHAUSTIVE else round(max(len(vectors) ** 0.5, len(vectors) / MAX_CELL))
    if cells <= MAX_CELL:
        centres = _cluster(vectors, cells)
        return Centres(centres, centres[:1], np.array([0, cells]))
    branches = _cluster(vectors, round(cells**0.5))
    sample = vectors[np.sort(np.random.default_rng(0).integers(len(vectors), size=SAMPLE * cells))]
    branch = _closest(sample, branches, 1)[1][:, 0]
    # As many cells in each branch as its vectors fill.
    counts = np.maximum(1, np.round(cells / len(sample) * np.bincount(branch, minlength=len(branches)))).astype(int)
    parts = pool.map(lambda number: _cluster(sample[branch == number], counts[number]), range(len(branches)))
    return Centres(np.concatenate(list(parts)), branches, np.append(0, counts.cumsum()))


def _cluster(vectors: np.ndarray, count: int) -> np.ndarray:
    """Centres of `count` clusters, unit vectors float32 (count, D): spherical k-means of a sample."""
    sample = np.random.default_rng(0).permutation(len(vectors))[: SAMPLE * count]
    sample_vectors = vectors[np.sort(sample)].astype(np.float32)
    centres = sample_vectors[:: max(1, len(sample_vectors) // count)][:count].copy()
    for _ in range(ROUNDS if count > 1 else 0):
        cell = _closest(sample_vectors, centres, 1)[1][:, 0]
        order = np.argsort(cell, kind="stable")
        edges = np.searchsorted(cell[order], np.arange(count + 1))
        sorted_vectors = sample_vectors[order]
        for number, (begin, end) in enumerate(pairwise(edges)):
            centres[number] = sorted_vectors[begin:end].sum(0) if begin < end else centres[number]
        centres /= np.linalg.norm(centres, axis=1, keepdims=True) + 1e-9
    return centres


def _nearest(vectors: np.ndarray, centres: Centres) -> np.ndarray:
    """The PROBES closest cells of each vector, int32 (N, PROBES), the closest first; of many cells, those in the
    closest BRANCHES."""
    if len(centres.branches) == 1:
        return _closest(vectors, centres.cells, PROBES)[1]
    branch = _closest(vectors, centres.branches, BRANCHES)[1]
    width = branch.shape[1]
    branch = branch.ravel().astype(np.uint16)  # of which a stable sort takes a fraction of the time
    visits = np.argsort(branch, kind="stable")
    edges = np.searchsorted(branch[visits], np.arange(len(centres.edges)))
    similarity = np.full((len(visits), PROBES), -np.inf, np.float32)
    cell = np.zeros((len(visits), PROBES), np.int32)
    for number, (begin, end) in enumerate(pairwise(centres.edges.tolist())):
        rows = visits[edges[number] : edges[number + 1]]
        values, columns = _closest(vectors[rows // width], centres.cells[begin:end], PROBES)
        similarity[rows, : values.shape[1]], cell[rows, : values.shape[1]] = values, columns + begin
    similarity, cell = similarity.reshape(len(vectors), -1), cell.reshape(len(vectors), -1)
    return np.take_along_axis(cell, _largest(similarity, PROBES)[1], 1)


def _closest(vectors: np.ndarray, centres: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` most similar of `centres` (K, D), or all, for each of `vectors` (N, D), the most similar first: the
    similarity float32 (N, count), and the row int32 (N, count)."""
    count = min(count, len(centres))
    values, columns = np.empty((len(vectors), count), np.float32), np.empty((len(vectors), count), np.int32)
    for start in range(0, len(vectors), BLOCK):
        similarity = vectors[start : start + BLOCK].astype(np.float32) @ centres.T
        values[start : start + BLOCK], columns[start : start + BLOCK] = _largest(similarity, count)
    return values, columns


def _largest(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest of each row of `values` float32 (N, K), in which they become -inf, the largest first, and
    their columns int32; of equal ones the first."""
    rows = np.arange(len(values))
    largest, columns = np.empty((len(values), count), np.float32), np.empty((len(values), count), np.int32)
    for rank in range(count):
        best = values.argmax(1)
        largest[:, rank], columns[:, rank] = values[rows, best], best
        values[rows, best] = -np.inf
    return largest, columns
