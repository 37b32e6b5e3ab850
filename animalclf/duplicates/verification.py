"""The second stage of the search for duplicates: a part of one image is moved until it fits the other image best
(Gauss-Newton over four edges, gain and offset), and the fine detail of both is correlated."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from animalclf.duplicates.candidates import PARTS, SIDE

MIN_CORRELATION = 0.8  # of the detail of a pair that counts


class Step(NamedTuple):
    """One step from coarse to fine: thumbnails are shrunk by `shrink`, the edges are moved `moves` times, and pairs
    whose detail then correlates by more than `min_correlation` take the next step."""

    shrink: int
    moves: int
    min_correlation: float


STEPS = (Step(4, 1, 0.6), Step(2, 1, 0.75), Step(1, 3, MIN_CORRELATION))


def correlations(signatures: np.ndarray, coarse: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Correlation of fine detail float64 (M,) of candidate pairs int64 (M, 4): rows of part and whole, crop, symmetry.
    0 for a pair that failed a step. `coarse`: all signatures, shrunk for the first step."""
    part, whole, crop, symmetry = pairs.T
    edges = PARTS[crop]
    swap, down, across = (symmetry & 4) > 0, (symmetry & 2) > 0, (symmetry & 1) > 0
    edges[down, :2], edges[across, 2:] = 1 - edges[down, 1::-1], 1 - edges[across, :1:-1]
    edges[swap] = edges[swap][:, [2, 3, 0, 1]]

    result = np.zeros(len(pairs))
    left = np.arange(len(pairs))  # the pairs that passed all steps so far
    for step in STEPS:
        if step is STEPS[0]:
            moving, fixed = coarse[part], coarse[whole]
        else:
            moving, fixed = (
                shrink(signatures[row[left]].reshape(-1, SIDE, SIDE), step.shrink) for row in (part, whole)
            )
        moving[down[left]] = moving[down[left], ::-1]
        moving[across[left]] = moving[across[left], :, ::-1]
        moving[swap[left]] = moving[swap[left]].swapaxes(1, 2)
        for _ in range(step.moves):
            edges[left] = _move_edges(moving, fixed, edges[left])
        correlation = _correlation(_detail(_cut(moving, edges[left])), _detail(fixed))
        passed = correlation > step.min_correlation
        left, correlation = left[passed], correlation[passed]
    result[left] = correlation
    return result


def shrink(thumbs: np.ndarray, factor: int) -> np.ndarray:
    """Means of `factor` x `factor` pixels of thumbnails uint8 (M, S, S), as float32 (M, S / factor, S / factor)."""
    rows = sum(
        (thumbs[:, start::factor].astype(np.uint16) for start in range(1, factor)),
        thumbs[:, ::factor].astype(np.uint16),
    ).astype(np.float32)
    if factor == 1:
        return rows
    side = rows.shape[2]
    sums = (np.arange(side)[:, None] // factor == np.arange(side // factor)).astype(np.float32)
    return rows @ sums / np.float32(factor * factor)


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
    return (edges + step).clip((-0.05, 0.6) * 2, (0.4, 1.05) * 2).astype(np.float32)


def _blur(side: int, sigma: float) -> np.ndarray:
    """Matrix float32 (side, side) of a Gaussian blur along one axis."""
    weights = np.exp(-0.5 * (np.subtract.outer(np.arange(side), np.arange(side)) / sigma) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _detail(thumbs: np.ndarray) -> np.ndarray:
    """Thumbnails (M, S, S) without the finest detail, which recompression changes, and without the coarse one, which
    unrelated images share."""
    fine, coarse = _blur(thumbs.shape[1], 0.7), _blur(thumbs.shape[1], 1.5)
    smooth = fine @ thumbs @ fine.T
    return (smooth - coarse @ smooth @ coarse.T)[:, 2:-2, 2:-2]


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation (M,) of a and b (M, S, S); close to 0 if the detail is not much more than rounding noise, about
    0.3 grey levels."""
    a, b = (x - x.mean((1, 2), keepdims=True) for x in (a, b))
    return (a * b).mean((1, 2)) / np.sqrt(((a * a).mean((1, 2)) + 0.1) * ((b * b).mean((1, 2)) + 0.1))
