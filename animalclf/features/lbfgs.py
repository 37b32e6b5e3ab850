"""L-BFGS (Liu, Nocedal 1989) for smooth convex objectives with variables of one scale. Plain NumPy: between evaluations
it takes a fraction of the time of scipy.optimize's L-BFGS-B, whose bounds nobody here needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

MEMORY = 10  # pairs of steps and changes of the gradient
SUFFICIENT, SHORTEST = 1e-4, 1e-8  # decrease of the objective over that of its tangent; step of the line search


def minimum(
    objective: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, tolerance: float, max_steps: int
) -> np.ndarray:
    """Where the largest component of the gradient is below `tolerance`, or as near as `max_steps` and the precision of
    `objective` get. `objective`: value and gradient float (N,) at a point float (N,)."""
    point, (value, gradient) = start, objective(start)
    pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=MEMORY)
    for _ in range(max_steps):
        if np.abs(gradient).max() < tolerance:
            break
        direction = _direction(gradient, pairs)
        slope, length = direction @ gradient, 1.0
        while True:
            new_point = point + length * direction
            new_value, new_gradient = objective(new_point)
            if new_value <= value + SUFFICIENT * length * slope:
                break
            length /= 2
            if length < SHORTEST:  # rounding is all that is left to gain
                return point
        change, bend = new_point - point, new_gradient - gradient
        curvature = float(change @ bend)
        if curvature > 0:
            pairs.append((change, bend, curvature))
        point, value, gradient = new_point, new_value, new_gradient
    return point


def _direction(gradient: np.ndarray, pairs: deque[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """Minus the gradient times the inverse Hessian that `pairs` of changes (of point and gradient, with their product)
    make of a multiple of the identity."""
    direction, factors = -gradient, []
    for change, bend, curvature in reversed(pairs):
        factors.append(change @ direction / curvature)
        direction -= factors[-1] * bend
    if pairs:
        _, bend, curvature = pairs[-1]
        direction *= curvature / (bend @ bend)
    for (change, bend, curvature), factor in zip(pairs, reversed(factors), strict=True):
        direction += (factor - bend @ direction / curvature) * change
    return direction
