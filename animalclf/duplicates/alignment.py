"""The second stage of the search for duplicates: a part of one thumbnail is moved until it fits a part of another best
(Gauss-Newton over four edges, gain and offset), and the detail of both is correlated."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from animalclf.duplicates.regions import ACROSS, DOWN, SIDE, SWAP, blur_matrix

MIN_CORRELATION = 0.6  # of the detail of a pair that counts


class Step(NamedTuple):
    """One step from coarse to fine: thumbnails are shrunk by `shrink`, the edges are moved `moves` times, and pairs
    whose detail then correlates by more than MIN_CORRELATION take the next step."""

    shrink: int
    moves: int


STEPS = (Step(2, 3), Step(1, 2))


def correlations(
    thumbnails: Callable[[np.ndarray], np.ndarray],
    pairs: np.ndarray,
    symmetry: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> np.ndarray:
    """Correlation of detail float64 (M,) of pairs int64 (M, 2) of rows of `thumbnails`, which returns uint8 (M, SIDE *
    SIDE); 0 for a pair that failed a step. `first`, `second`: edges float32 (M, 4) (top, bottom, left, right) as
    fractions, of the same part in both; in the first after `symmetry`."""
    across, down, swap = ((symmetry & bit) > 0 for bit in (ACROSS, DOWN, SWAP))
    edges, result = first.copy(), np.zeros(len(pairs))
    left = np.arange(len(pairs))  # the pairs that passed all steps so far
    for step in STEPS:
        moving, fixed = (shrink(thumbnails(rows).reshape(-1, SIDE, SIDE), step.shrink) for rows in pairs[left].T)
        moving[across[left]] = moving[across[left], :, ::-1]
        moving[down[left]] = moving[down[left], ::-1]
        moving[swap[left]] = moving[swap[left]].swapaxes(1, 2)
        fixed = _cut(fixed, second[left])
        for _ in range(step.moves):
            edges[left] = _move_edges(moving, fixed, edges[left])
        correlation = _correlation(_detail(_cut(moving, edges[left])), _detail(fixed))
        left, correlation = left[correlation > MIN_CORRELATION], correlation[correlation > MIN_CORRELATION]
    result[left] = correlation
    return result


def shrink(thumbs: np.ndarray, factor: int) -> np.ndarray:
    """Means of `factor` x `factor` pixels of thumbnails uint8 (M, S, S), as float32 (M, S / factor, S / factor)."""
    count, side, _ = thumbs.shape
    return thumbs.reshape(count, side // factor, factor, side // factor, factor).mean((2, 4), dtype=np.float32)


def _cut(thumbs: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The parts within edges (M, 4) of thumbnails (M, S, S), stretched to the same size with linear interpolation."""
    side = thumbs.shape[1]
    centre = (np.arange(side, dtype=np.float32) + 0.5) / side
    positions = (edges[:, ::2, None] + centre * (edges[:, 1::2] - edges[:, ::2])[:, :, None]) * side - 0.5
    weights = np.maximum(0, 1 - np.abs(positions.clip(0, side - 1)[..., None] - np.arange(side, dtype=np.float32)))
    return weights[:, 0] @ thumbs @ weights[:, 1].swapaxes(1, 2)


def _move_edges(moving: np.ndarray, fixed: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Edges (M, 4) after one Gauss-Newton step: least squares of gain, offset and the four edges for `fixed` as the cut
    of `moving`."""
    count, side, _ = moving.shape
    cut = _cut(moving, edges)
    centre = (np.arange(side, dtype=np.float32) + 0.5) / side
    size = (edges[:, 1::2] - edges[:, ::2])[..., None, None]
    down, across = (slope * side / size[:, axis] for axis, slope in enumerate(np.gradient(cut, axis=(1, 2))))
    terms = [
        cut,
        np.ones_like(cut),
        down * (1 - centre[:, None]),
        down * centre[:, None],
        across * (1 - centre),
        across * centre,
        fixed,
    ]
    slopes = np.stack(terms, 1).reshape(count, len(terms), side * side)
    products = (slopes @ slopes.swapaxes(1, 2)).astype(np.float64)
    # The added diagonal makes the equations solvable even if an image is uniform.
    normal = products[:, :-1, :-1] * (1 + 1e-4 * np.eye(6)) + 1e-3 * np.eye(6)
    solution = np.linalg.solve(normal, products[:, :-1, -1:])[..., 0]
    step = (solution[:, 2:] / solution[:, :1].clip(0.1)).clip(-0.06, 0.06)
    new_edges = (edges + step).clip(-0.1, 1.1)
    too_small = (new_edges[:, 1::2] - new_edges[:, ::2] < 0.2).any(1)
    return np.where(too_small[:, None], edges, new_edges).astype(np.float32)


def _detail(thumbs: np.ndarray) -> np.ndarray:
    """Thumbnails (M, S, S) without the finest detail, which recompression changes, and without the coarse one, which
    unrelated images share."""
    fine, coarse = blur_matrix(thumbs.shape[1], 0.7), blur_matrix(thumbs.shape[1], 2)
    smooth = fine @ thumbs @ fine.T
    return (smooth - coarse @ smooth @ coarse.T)[:, 1:-1, 1:-1]


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation (M,) of a and b (M, S, S); close to 0 if the detail is not much more than rounding noise, about
    0.3 grey levels."""
    a, b = (x - x.mean((1, 2), keepdims=True) for x in (a, b))
    return (a * b).mean((1, 2)) / np.sqrt(((a * a).mean((1, 2)) + 0.1) * ((b * b).mean((1, 2)) + 0.1))
