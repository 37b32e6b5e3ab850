"""Augmentation of uint8 batches: one composed affine warp a picture, then colours; its parameters are a pure function of (seed, epoch, index).

Here the parameters, and their use by OpenCV; data/device.py uses the same parameters on the training device.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from animalclf.config import Augment
from animalclf.data import colour

Pictures = np.ndarray | Sequence[np.ndarray]  # uint8 (N, S, S, 3), or N views of uint8 (S, S, 3)
_DRAWS = 6  # random numbers a picture: angle, shift x, shift y, zoom x, zoom y, flip
_CROP, _TRIVIAL, _COLOUR = 0x63726F70, 0x74726976, 0x636F6C72  # each purpose has random numbers of its own


def uniform(seed: int, epoch: int, index: np.ndarray, draws: int) -> np.ndarray:
    """Random numbers in [0, 1), float64 (N, draws), each a pure function of (seed, epoch, index, draw): the SplitMix64 mixing function
    (Steele, Lea, Flood 2014) over a counter. The same picture gets the same numbers in any batch, on any worker, in any order."""
    with np.errstate(over="ignore"):
        key = _mix(_mix(np.array(seed & (2**64 - 1), np.uint64)) + np.uint64(epoch))
        counter = index.astype(np.uint64)[:, None] * np.uint64(draws) + np.arange(draws, dtype=np.uint64)
        return (_mix(counter ^ key) >> np.uint64(11)) * 2.0**-53


def _mix(z: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def is_identity(augment: Augment) -> bool:
    """True where no picture would be changed."""
    still = augment.rotation == 0 and augment.shift == 0 and augment.zoom == (1.0, 1.0) and not augment.flip and augment.crop == (1.0, 1.0)
    return still and not colour.wanted(augment) and not augment.trivial


def matrices(augment: Augment, seed: int, epoch: int, index: np.ndarray, stored_size: int, input_size: int) -> np.ndarray:
    """The warps of the pictures `index` (int64 (N,)) in `epoch`: float64 (N, 2, 3), each mapping an output pixel (x, y, 1) of the
    input_size square to a place (x, y) in the stored_size square, pixel centres at whole numbers.

    As Keras's ImageDataGenerator composes it: rotation, then shift (share of the side), then zoom (x and y apart; the factor stretches the
    sampling grid, so below 1 zooms in), all about the centre, then the horizontal flip of the result. The step from output to stored
    pixels is part of the same matrix, so that a picture is interpolated once.
    """
    angle, shift_x, shift_y, zoom_x, zoom_y, flip = uniform(seed, epoch, index, _DRAWS).T
    low, high = augment.zoom
    theta = np.deg2rad((2 * angle - 1) * augment.rotation)
    scale = stored_size / input_size
    zx = (low + (high - low) * zoom_x) * np.where(augment.flip & (flip < 0.5), -scale, scale)
    zy = (low + (high - low) * zoom_y) * scale
    cos, sin = np.cos(theta), np.sin(theta)
    linear = np.stack([np.stack([cos * zx, -sin * zy], -1), np.stack([sin * zx, cos * zy], -1)], -2)
    dx, dy = (2 * shift_x - 1) * augment.shift * stored_size, (2 * shift_y - 1) * augment.shift * stored_size
    moved = np.stack([cos * dx - sin * dy, sin * dx + cos * dy], -1)
    centre_out, centre_in = (input_size - 1) / 2, (stored_size - 1) / 2
    offset = moved + centre_in - linear @ np.array([centre_out, centre_out])
    affine = np.concatenate([linear, offset[..., None]], -1)
    if augment.crop != (1.0, 1.0):
        affine = _after(affine, _crop(augment, uniform(seed ^ _CROP, epoch, index, 4), input_size))
    if augment.trivial:
        affine = _after(affine, colour.trivial_warp(*trivial_draws(seed, epoch, index), input_size))
    return affine


def _after(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """The warps float64 (N, 2, 3) that show what `outer` makes of what `inner` shows: a place goes through `outer`, then through `inner`."""
    linear = inner[:, :, :2] @ outer[:, :, :2]
    offset = (inner[:, :, :2] @ outer[:, :, 2:]) + inner[:, :, 2:]
    return np.concatenate([linear, offset], -1)


def _crop(augment: Augment, draws: np.ndarray, size: int) -> np.ndarray:
    """Random resized crops (Szegedy et al. 2014; as torchvision draws them, but a side longer than the picture is cut to it)."""
    area, shape, place_x, place_y = draws.T
    share, ratio = augment.crop[0] + (augment.crop[1] - augment.crop[0]) * area, np.exp(np.log(4 / 3) * (2 * shape - 1))
    width, height = np.minimum(np.sqrt(share * ratio), 1), np.minimum(np.sqrt(share / ratio), 1)
    affine = np.zeros((len(draws), 2, 3))
    # The pixels of the output are spread over the crop: edges on edges, not centres on centres.
    for axis, (side, place) in enumerate(((width, place_x), (height, place_y))):
        affine[:, axis, axis], affine[:, axis, 2] = side, (side - 1) / 2 + place * (1 - side) * size
    return affine


def trivial_draws(seed: int, epoch: int, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """TrivialAugment's choice a picture: number of the operation int64 (N,), and its signed strength float64 (N,) in -1 to 1."""
    choice, strength = uniform(seed ^ _TRIVIAL, epoch, index, 2).T
    return (choice * len(colour.TRIVIAL)).astype(np.int64), 2 * strength - 1


def warp(images: Pictures, affine: np.ndarray, size: int, out: np.ndarray | None = None) -> np.ndarray:
    """Each picture of uint8 (N, S, S, 3) through its matrix of float64 (N, 2, 3): uint8 (N, size, size, 3). Bilinear; the border pixel is
    repeated outside (Keras's fill_mode 'nearest')."""
    if out is None:
        out = np.empty((len(images), size, size, 3), np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for position, image in enumerate(images):
        cv2.warpAffine(image, affine[position], (size, size), dst=out[position], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return out


def augment_batch(images: Pictures, index: np.ndarray, augment: Augment, seed: int, epoch: int, input_size: int) -> np.ndarray:
    """The training view of stored pictures uint8 (N, S, S, 3) with manifest rows `index`: uint8 (N, input_size, input_size, 3)."""
    if is_identity(augment):
        return evaluation_view(images, input_size)
    out = warp(images, matrices(augment, seed, epoch, index, len(images[0]), input_size), input_size)
    if colour.wanted(augment) or augment.trivial:
        colour.apply(out, look(augment, seed, epoch, index, input_size))
    return out


def look(augment: Augment, seed: int, epoch: int, index: np.ndarray, size: int) -> colour.Look:
    """What happens to the colours of the warped pictures `index` (int64 (N,)) of `size` px."""
    trivial = trivial_draws(seed, epoch, index) if augment.trivial else None
    return colour.look(augment, uniform(seed ^ _COLOUR, epoch, index, colour.DRAWS), trivial, size)


def evaluation_view(images: Pictures, input_size: int) -> np.ndarray:
    """The view of stored pictures uint8 (N, S, S, 3) that validation and prediction see: resized, nothing else. uint8 (N, input, input, 3)."""
    if len(images) and len(images[0]) == input_size:
        return np.asarray(images) if isinstance(images, np.ndarray) else np.stack(images)
    out = np.empty((len(images), input_size, input_size, 3), np.uint8)
    for position, image in enumerate(images):
        cv2.resize(image, (input_size, input_size), dst=out[position], interpolation=cv2.INTER_AREA)
    return out
