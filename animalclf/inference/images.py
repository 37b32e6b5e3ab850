"""The bytes of an image file to what a model takes: the one way of `predict` and `serve`."""

from __future__ import annotations

import numpy as np

from animalclf.config import Config, Data
from animalclf.data import decode
from animalclf.data.augment import evaluation_view
from animalclf.data.resize import decoded_side, stored_image


def model_input(content: bytes, name: str, config: Config) -> np.ndarray:
    """The view uint8 (view_size, view_size, 3) of an image file: decoded, resized as by `prepare`, then as for
    validation. `name`: see decode.decode. Raises UnreadableImage."""
    image = decoded_image(content, name, config.data)
    return evaluation_view([stored_image(image, config.data.stored_size, config.data.resize)], config.view_size)[0]


def decoded_image(content: bytes, name: str, data: Data) -> np.ndarray:
    """The pixels uint8 (H, W, 3) of an image file that `prepare` resizes to the stored size; of a large photograph they
    are reduced. `name`: see decode.decode. Raises UnreadableImage."""
    min_side = decoded_side(data.stored_size, data.resize)
    return decode.decode(content, name=name, max_pixels=data.max_pixels, min_side=min_side).image
