"""Views of an image whose probabilities are averaged at prediction time (`--views`). Plain NumPy."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from animalclf.data.augment import evaluation_view
from animalclf.errors import UserError
from animalclf.utils.canvas import PADDING, STEP

View = Callable[[np.ndarray], np.ndarray]  # of a batch uint8 (N, S, S, 3)
CROPPED = 1 / 16  # of the side, at each edge of the centre view


def same(images: np.ndarray) -> np.ndarray:
    return images


def mirror(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images[:, :, ::-1])


def centre(images: np.ndarray) -> np.ndarray:
    """The middle 7/8 of both sides, enlarged."""
    size = images.shape[1]
    edge = round(size * CROPPED)
    return evaluation_view(images[:, edge : size - edge, edge : size - edge], size)


def canvas_centre(canvases: np.ndarray) -> np.ndarray:
    """The middle 7/8 of both sides of the image on each canvas, enlarged to the image's place (utils/canvas.py)."""
    views = canvases.copy()
    for view in views:
        filled = (view != PADDING).any(2)
        top, bottom = _extent(filled.any(1))
        left, right = _extent(filled.any(0))
        height, width = bottom - top, right - left
        down, across = round(height * CROPPED), round(width * CROPPED)
        inner = view[top + down : bottom - down, left + across : right - across]
        view[top:bottom, left:right] = cv2.resize(inner, (width, height), interpolation=cv2.INTER_AREA)
    return views


def _extent(filled: np.ndarray) -> tuple[int, int]:
    """First and last + 1 of the lines with pixels, bool (S,), as multiples of STEP around them; all if none has."""
    lines = np.flatnonzero(filled)
    return (int(lines[0]) // STEP * STEP, -(-(int(lines[-1]) + 1) // STEP) * STEP) if len(lines) else (0, len(filled))


def centre_undone(maps: np.ndarray) -> np.ndarray:
    """Maps float32 (N, S, S) of centre views in their place on the whole image, around which they are 0."""
    size = maps.shape[1]
    edge = round(size * CROPPED)
    inner = [cv2.resize(each, (size - 2 * edge,) * 2, interpolation=cv2.INTER_AREA) for each in maps]
    return np.pad(inner, ((0, 0), (edge, edge), (edge, edge)))


VIEWS: dict[str, tuple[View, ...]] = {
    "none": (same,),
    "flip": (same, mirror),
    "multi": (same, mirror, centre, lambda images: mirror(centre(images))),
}
"""The views by name; the first of each is the image itself."""
CANVAS_VIEWS = VIEWS | {"multi": (same, mirror, canvas_centre, lambda canvases: mirror(canvas_centre(canvases)))}
"""The same of images on canvases, for models that keep their shape."""
UNDONE: dict[str, tuple[View, ...]] = {
    "none": (same,),
    "flip": (same, mirror),
    "multi": (same, mirror, centre_undone, lambda maps: centre_undone(mirror(maps))),
}
"""Maps float32 (N, S, S) of each of the VIEWS to those of the image itself."""


def check_views(views: str) -> None:
    """Raise UserError for unknown views."""
    if views not in VIEWS:
        raise UserError(f"views: {views!r} is not one of {', '.join(VIEWS)}")
