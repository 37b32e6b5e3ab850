"""The bytes of an image file to what a model takes: the one way of `predict` and `serve`."""

from __future__ import annotations

import numpy as np

from animalclf.config import Config
from animalclf.data import decode
from animalclf.data.augment import evaluation_view
from animalclf.data.resize import stored_image


def model_input(content: bytes, name: str, config: Config) -> np.ndarray:
    """The view uint8 (view_size, view_size, 3) of an image file: decoded, resized as by `prepare`, then as for
    validation. `name`: see decode.decode. Raises UnreadableImage."""
    image = decode.decode(content, name=name, max_pixels=config.data.max_pixels).image
    return evaluation_view([stored_image(image, config.data.stored_size, config.data.resize)], config.view_size)[0]
