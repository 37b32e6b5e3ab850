"""Which images to label next: those that stand for many images of which the model is unsure. Plain NumPy.

Filtered active submodular selection (Wei, Iyer, Bilmes 2015, "Submodularity in Data Subset Selection and Active
Learning"), whose facility location is weighted by the uncertainty here. `python -m benchmarks.suggest` compares it with
others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_POOL = 4_000  # unlabelled images, the most uncertain ones, whose similarities are in memory: 64 MB
BLOCK = 2_048  # labelled images whose similarities are in memory at a time
SELECTED = -1.0  # in place of the gain of an image that is selected
BANDWIDTH = 1.0  # squared distance of two directions at which the similarity is 1 / e


@dataclass(frozen=True, eq=False)
class Selection:
    """`order`: rows of the pool int64 (K,), the most useful first. `gain`: of each, float (K,), the fraction of the
    pool's uncertainty that it covers and the images before it do not."""

    order: np.ndarray
    gain: np.ndarray


def uncertainty(probabilities: np.ndarray) -> np.ndarray:
    """The square root of 1 minus the difference of the two largest of the probabilities float (N, C): float64 (N,),
    from 0 to 1. With the root coverage counts more, which a model of few labels needs."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    second, first = np.sort(probabilities.astype(np.float64), axis=1)[:, -2:].T
    return np.sqrt(np.maximum(1 - (first - second), 0))


def select(pool: np.ndarray, weights: np.ndarray, labelled: np.ndarray, count: int) -> Selection:
    """`count` images of a pool (fewer if it is smaller) that cover it best, one after the other: each adds the most to
    the sum, over the pool's images, of their weight times their similarity to the nearest image that is selected or
    labelled.

    `pool` features float (N, F), `weights` float (N,) from `uncertainty`, `labelled` features float (L, F). Features
    are compared by their directions from the mean of all.
    """
    count = min(count, len(pool))
    rows = np.sort(np.argsort(-weights, kind="stable")[: max(MAX_POOL, count)])
    directions, labelled = _directions(pool[rows], labelled)
    similarity = _similarity(directions, directions)
    covered = np.zeros(len(rows), np.float32)
    for start in range(0, len(labelled), BLOCK):
        covered = np.maximum(covered, _similarity(directions, labelled[start : start + BLOCK]).max(1))
    weight, total = weights[rows].astype(np.float32), float(weights[rows].sum()) or 1.0
    # A gain only falls when others are selected, so that an earlier value is an upper bound (Minoux 1978): the image
    # with the largest value is selected as soon as its value is of this round.
    gain, is_current = weight @ np.maximum(similarity - covered[:, None], 0), np.ones(len(rows), bool)
    order: list[int] = []
    gains: list[float] = []
    while len(order) < count:
        best = int(gain.argmax())
        if not is_current[best]:
            gain[best] = weight @ np.maximum(similarity[:, best] - covered, 0)
            is_current[best] = True
            continue
        order.append(best)
        gains.append(float(gain[best]) / total)
        covered = np.maximum(covered, similarity[:, best])
        is_current[:] = False
        gain[best], is_current[best] = SELECTED, True
    return Selection(rows[order], np.array(gains))


def nearest(features: np.ndarray, others: np.ndarray, count: int) -> np.ndarray:
    """The rows of `others` float (M, F) that are among the `count` nearest of any row of `features` float (N, F), int64
    ascending."""
    if not len(others):
        return np.empty(0, np.int64)
    left, right = _directions(features, others)
    similarity = _similarity(left, right)
    return np.unique(np.argsort(-similarity, axis=1, kind="stable")[:, :count])


def _directions(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets of vectors as float32 unit vectors from their common mean."""
    both = np.concatenate([first, second]).astype(np.float32)
    both -= both.mean(0)
    both /= np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)
    return both[: len(first)], both[len(first) :]


def _similarity(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float32 (L, R) of unit vectors: from 1 for the same direction down to exp(-4 / BANDWIDTH)."""
    return np.exp((2 * (left @ right.T) - 2) / BANDWIDTH)
