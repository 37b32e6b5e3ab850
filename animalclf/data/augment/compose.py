"""From operations to the view of each image: a warp, a colour map, and the filters that are neither. Plain NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np

from animalclf.config import Augment
from animalclf.data.augment.operation import Operation, Samples, active_operations

GREY = 128  # of erased boxes, and the fixed point of contrast
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow and torchvision convert RGB to grey


@dataclass(frozen=True, eq=False)
class ColourMap:
    """Changes to the pixel values of N images, in this order; None changes nothing. Each step rounds to uint8."""

    matrix: np.ndarray | None = None
    """float32 (N, 3, 4), on (R, G, B, 1)."""
    table: np.ndarray | None = None
    """uint8 (N, 256)."""
    box: np.ndarray | None = None
    """int64 (N, 4): left, top, right, bottom (exclusive) of a grey box; empty = none."""

    @property
    def changes(self) -> bool:
        """True if pixel values change."""
        return self.matrix is not None or self.table is not None or self.box is not None


@dataclass(frozen=True, eq=False)
class View:
    """The training view of N stored images: the warp, then the colour map, then the filters."""

    warp: np.ndarray
    """float64 (N, 2, 3): from a pixel (x, y, 1) of the view to the position (x, y) in the stored image."""
    colour: ColourMap
    filters: list[tuple[Operation, np.ndarray]]
    """Operations with their parameters (N, ...)."""


def is_identity(augment: Augment) -> bool:
    """True if no image is changed."""
    return not active_operations(augment)


def compose(samples: Samples, stored_size: int) -> View:
    """The training view of `samples`, whose stored images have a side of `stored_size` pixels."""
    operations = active_operations(samples.augment)
    parameters = [(operation, operation.parameters(samples)) for operation in operations]
    filters = [(operation, values) for operation, values in parameters if values is not None]
    return View(_warp(samples, stored_size, operations), _colour(samples, operations), filters)


def _parts(operations: list[Operation], part: Callable[[Operation], np.ndarray | None]) -> list[np.ndarray]:
    return [values for operation in operations if (values := part(operation)) is not None]


# ---------------------------------------------------------------------------------------------------------------- warp


def _warp(samples: Samples, stored_size: int, operations: list[Operation]) -> np.ndarray:
    """The resize and the operations' warps as one matrix, so that an image is interpolated once: float64 (N, 2, 3)."""
    warps = _parts(operations, lambda operation: operation.warp(samples))
    if stored_size != samples.size or not warps:
        warps.insert(0, np.tile(_resize(stored_size, samples.size), (len(samples.index), 1, 1)))
    return reduce(_then, warps)


def _resize(stored_size: int, size: int) -> np.ndarray:
    scale = stored_size / size
    offset = (stored_size - 1) / 2 - scale * (size - 1) / 2  # centre on centre
    return np.array([[scale, 0, offset], [0, scale, offset]])


def _then(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """The warp `inner` followed by `outer`, float64 (N, 2, 3). Warps map output to input: a position goes through
    `outer` first."""
    linear = inner[:, :, :2] @ outer[:, :, :2]
    offset = (inner[:, :, :2] @ outer[:, :, 2:]) + inner[:, :, 2:]
    return np.concatenate([linear, offset], -1)


# --------------------------------------------------------------------------------------------------------------- colour


def _colour(samples: Samples, operations: list[Operation]) -> ColourMap:
    factors = _parts(operations, lambda operation: operation.colour_factors(samples))
    tables = _parts(operations, lambda operation: operation.colour_table(samples))
    boxes = _parts(operations, lambda operation: operation.erased_box(samples))
    product = reduce(np.multiply, factors) if factors else np.ones((1, 3))
    return ColourMap(
        matrix=None if (product == 1).all() else colour_matrix(product),
        table=reduce(_table_then, tables) if tables else None,
        box=reduce(_box_or, boxes) if boxes else None,
    )


def colour_matrix(factors: np.ndarray) -> np.ndarray:
    """Factors float64 (N, 3) of brightness, contrast and saturation as float32 (N, 3, 4): saturation towards each
    pixel's grey, then contrast about mid-grey, then brightness."""
    brightness, contrast, saturation = factors.T
    mixed = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * _LUMA
    scale = (brightness * contrast)[:, None, None]
    offset = (brightness * (1 - contrast) * GREY)[:, None, None]
    return np.concatenate([mixed * scale, np.broadcast_to(offset, (len(brightness), 3, 1))], -1).astype(np.float32)


def _table_then(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.take_along_axis(second, first.astype(np.int64), 1)


def _box_or(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """An image has one box: the second, or the first if the second is empty."""
    return np.where(np.all(second[:, 2:] > second[:, :2], axis=1, keepdims=True), second, first)
