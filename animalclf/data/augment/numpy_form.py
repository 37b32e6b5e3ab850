"""Training and evaluation views of uint8 batches with NumPy and OpenCV, for input tasks and for prediction."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from animalclf.config import Augment
from animalclf.data.augment.compose import GREY, ColourMap, compose, is_identity
from animalclf.data.augment.operation import Samples

Images = np.ndarray | Sequence[np.ndarray]  # uint8 (N, S, S, 3), or N views of uint8 (S, S, 3)


def augment_batch(
    images: Images, index: np.ndarray, augment: Augment, seed: int, epoch: int, input_size: int
) -> np.ndarray:
    """The training view uint8 (N, input_size, input_size, 3) of stored images uint8 (N, S, S, 3) with manifest rows
    `index` int64 (N,)."""
    if is_identity(augment):
        return evaluation_view(images, input_size)
    view = compose(Samples(augment, seed, epoch, index, input_size), len(images[0]))
    out = warp(images, view.warp, input_size)
    if view.colour.changes:
        apply_colour(out, view.colour)
    for operation, parameters in view.filters:
        out = operation.apply_numpy(out, parameters)
    return out


def warp(images: Images, affine: np.ndarray, size: int, out: np.ndarray | None = None) -> np.ndarray:
    """Each image of uint8 (N, S, S, 3) through its matrix of float64 (N, 2, 3): uint8 (N, size, size, 3), into `out`
    if that is given. Bilinear; the border pixel is repeated outside (Keras's fill_mode 'nearest')."""
    if out is None:
        out = np.empty((len(images), size, size, 3), np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for image, matrix, view in zip(images, affine, out, strict=True):
        cv2.warpAffine(image, matrix, (size, size), dst=view, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return out


def apply_colour(images: np.ndarray, colour: ColourMap) -> None:
    """Change the pixel values of uint8 (N, S, S, 3) in place."""
    for position, image in enumerate(images):
        if colour.matrix is not None:
            cv2.transform(image, colour.matrix[position], dst=image)
        if colour.table is not None:
            cv2.LUT(image, colour.table[position], dst=image)
        if colour.box is not None:
            left, top, right, bottom = colour.box[position]
            image[top:bottom, left:right] = GREY


def evaluation_view(images: Images, input_size: int) -> np.ndarray:
    """The validation and prediction view uint8 (N, input_size, input_size, 3) of stored images uint8 (N, S, S, 3):
    resized, nothing else."""
    if len(images) and len(images[0]) == input_size:
        return np.asarray(images) if isinstance(images, np.ndarray) else np.stack(images)
    out = np.empty((len(images), input_size, input_size, 3), np.uint8)
    for image, view in zip(images, out, strict=True):
        cv2.resize(image, (input_size, input_size), dst=view, interpolation=cv2.INTER_AREA)
    return out
