"""The second stage of the search for duplicates: a part is moved until it fits the other image best (Gauss-Newton: four edges, gain and offset), and
the fine detail of both is correlated."""

from __future__ import annotations

import numpy as np

from animalclf.duplicates.candidates import PARTS, SIDE

EVEN = 0.8  # correlation of detail from which on a pair counts
# Shrink thumbnails by, move the edges so many times, go on where the detail then correlates by more than.
STEPS = ((4, 1, 0.6), (2, 1, 0.75), (1, 3, EVEN))


def correlations(signatures: np.ndarray, coarse: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Correlation (M,) of fine detail for hits int64 (M, 4) of rows part and whole, crop and symmetry; what was seen to be lower than EVEN is 0.
    `coarse`: all signatures, shrunk for the first of STEPS, which few hits survive."""
    part, whole, crop, symmetry = hit.T
    edges = PARTS[crop]
    swap, down, across = (symmetry & 4) > 0, (symmetry & 2) > 0, (symmetry & 1) > 0
    edges[down, :2], edges[across, 2:] = 1 - edges[down, 1::-1], 1 - edges[across, :1:-1]
    edges[swap] = edges[swap][:, [2, 3, 0, 1]]

    detail = np.zeros(len(hit))
    left = np.arange(len(hit))
    for shrink, steps, least in STEPS:
        if shrink == STEPS[0][0]:
            moving, fixed = coarse[part], coarse[whole]
        else:
            moving, fixed = (shrunk(signatures[rows[left]].reshape(-1, SIDE, SIDE), shrink) for rows in (part, whole))
        moving[down[left]] = moving[down[left], ::-1]
        moving[across[left]] = moving[across[left], :, ::-1]
        moving[swap[left]] = moving[swap[left]].swapaxes(1, 2)
        for _ in range(steps):
            edges[left] = _moved(moving, fixed, edges[left])
        fit = _correlation(_detail(_cut(moving, edges[left])), _detail(fixed))
        left, fit = left[fit > least], fit[fit > least]
    detail[left] = fit
    return detail


def shrunk(thumbs: np.ndarray, by: int) -> np.ndarray:
    """Averages of `by` x `by` pixels of thumbnails uint8 (M, S, S), float32 (M, S / by, S / by)."""
    rows = sum(
        (thumbs[:, start::by].astype(np.uint16) for start in range(1, by)), thumbs[:, ::by].astype(np.uint16)
    ).astype(np.float32)
    if by == 1:
        return rows
    side = rows.shape[2]
    return rows @ (np.arange(side)[:, None] // by == np.arange(side // by)).astype(np.float32) / np.float32(by * by)


def _cut(thumbs: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The parts within edges (M, 4) of thumbnails (M, S, S), stretched to the same size with linear interpolation."""
    side = thumbs.shape[1]
    centre = (np.arange(side, dtype=np.float32) + 0.5) / side
    places = (edges[:, ::2, None] + centre * (edges[:, 1::2] - edges[:, ::2])[:, :, None]) * side - 0.5
    weights = np.maximum(0, 1 - np.abs(places.clip(0, side - 1)[..., None] - np.arange(side, dtype=np.float32)))
    return weights[:, 0] @ thumbs @ weights[:, 1].swapaxes(1, 2)


def _moved(moving: np.ndarray, fixed: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Edges after one Gauss-Newton step: least squares of gain, offset and the four edges for `fixed` as the cut of `moving`."""
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
    normal = products[:, :-1, :-1] * (1 + 1e-4 * np.eye(6)) + 1e-3 * np.eye(
        6
    )  # solvable also where a picture does not vary
    solution = np.linalg.solve(normal, products[:, :-1, -1:])[..., 0]
    step = (solution[:, 2:] / solution[:, :1].clip(0.1)).clip(-0.06, 0.06)
    return (edges + step).clip((-0.05, 0.6) * 2, (0.4, 1.05) * 2).astype(np.float32)


def _blur(side: int, sigma: float) -> np.ndarray:
    weights = np.exp(-0.5 * (np.subtract.outer(np.arange(side), np.arange(side)) / sigma) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _detail(thumbs: np.ndarray) -> np.ndarray:
    """Thumbnails (M, S, S) without both the finest detail, which recompression changes, and the coarse one, which unrelated pictures share."""
    fine, coarse = _blur(thumbs.shape[1], 0.7), _blur(thumbs.shape[1], 1.5)
    smooth = fine @ thumbs @ fine.T
    return (smooth - coarse @ smooth @ coarse.T)[:, 2:-2, 2:-2]


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation (M,) of a and b (M, S, S); nearly 0 where there is hardly more than the noise of rounding, about 0.3 grey levels."""
    a, b = (x - x.mean((1, 2), keepdims=True) for x in (a, b))
    return (a * b).mean((1, 2)) / np.sqrt(((a * a).mean((1, 2)) + 0.1) * ((b * b).mean((1, 2)) + 0.1))
