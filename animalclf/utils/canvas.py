"""Images of any shape on square canvases (`data.resize: keep`): a batch of canvases is one array, and a model that
reads them finds each image by its padding and computes on its own shape."""

from __future__ import annotations

PADDING = 128  # value of the padding; grey survives JPEG exactly
STEP = 32  # sides are multiples of it: what a network of five halvings reads without a remainder
SHORT_SIDE = 0.75  # largest shorter side, as a fraction of the canvas: 4 : 3 fills it


def sides_on_canvas(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of an image on a canvas of `size` px, a multiple of STEP: its shape kept to the nearest
    multiples of STEP, the longer side at most `size`, the shorter at most three quarters of it."""
    scale = min(size / max(height, width), SHORT_SIDE * size / min(height, width))
    stepped = [max(STEP, round(side * scale / STEP) * STEP) for side in (height, width)]
    return min(size, stepped[0]), min(size, stepped[1])
