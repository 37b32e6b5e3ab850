"""Augmentation of colours: jitter, TrivialAugment's operations, erasing, all as three simple maps a picture, so that any device can do them alike.

A picture goes through a 3 x 4 matrix on its RGB values, a table of 256 values, and a grey rectangle. Plain numpy and OpenCV.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from animalclf.config import Augment

DRAWS = 8  # random numbers a picture: brightness, contrast, saturation, erase or not, area, shape, x, y
GREY = 128
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow and torchvision turn RGB to grey
# TrivialAugment "wide" (Mueller and Hutter 2021), without its equalize, autocontrast and sharpness, which need more than a picture's own pixel.
TRIVIAL = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "colour", "contrast", "posterize", "solarize",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Look:
    """For N pictures: `matrix` float32 (N, 3, 4) on (R, G, B, 1), or None; `table` uint8 (N, 256), or None; `box` int64 (N, 4) left, top, right,
    bottom (exclusive; empty = none), or None. Each step rounds to uint8."""

    matrix: np.ndarray | None
    table: np.ndarray | None
    box: np.ndarray | None


def wanted(augment: Augment) -> bool:
    """True where colours change (TrivialAugment apart)."""
    return bool(augment.brightness or augment.contrast or augment.saturation or augment.erase)


def look(augment: Augment, draws: np.ndarray, trivial: tuple[np.ndarray, np.ndarray] | None, size: int) -> Look:
    """The maps of N pictures of `size` px from uniform random numbers (N, DRAWS), and TrivialAugment's operation and strength, both (N,)."""
    factors = 1 + (2 * draws[:, :3] - 1) * np.array([augment.brightness, augment.contrast, augment.saturation])
    table = None
    if trivial is not None:
        operation, strength = trivial
        for column, name in enumerate(("brightness", "contrast", "colour")):
            factors[:, column] *= np.where(operation == TRIVIAL.index(name), 1 + 0.99 * strength, 1)
        table = _tables(operation, np.abs(strength))
    plain = bool((factors == 1).all())
    return Look(None if plain else _matrices(*factors.T), table, _boxes(augment.erase, draws[:, 3:], size) if augment.erase else None)


def _matrices(brightness: np.ndarray, contrast: np.ndarray, saturation: np.ndarray) -> np.ndarray:
    """Saturation towards the picture's own grey, then contrast about mid-grey, then brightness."""
    mixed = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * _LUMA
    scale = (brightness * contrast)[:, None, None]
    offset = (brightness * (1 - contrast) * GREY)[:, None, None]
    return np.concatenate([mixed * scale, np.broadcast_to(offset, (len(brightness), 3, 1))], -1).astype(np.float32)


def _tables(operation: np.ndarray, strength: np.ndarray) -> np.ndarray | None:
    values = np.arange(256)
    bits = 8 - np.round(6 * strength).astype(np.int64)  # 8 to 2 bits are kept
    posterized = values & ~((1 << (8 - bits[:, None])) - 1)
    solarized = np.where(values >= 256 * (1 - strength[:, None]), 255 - values, values)
    kinds = [(operation == TRIVIAL.index(name))[:, None] for name in ("posterize", "solarize")]
    return np.select(kinds, [posterized, solarized], values).astype(np.uint8) if any(kind.any() for kind in kinds) else None


def _boxes(share: float, draws: np.ndarray, size: int) -> np.ndarray:
    """Random erasing (Zhong et al. 2017): 2 to 33 % of the area, sides 1:3 to 3:1, cut off at the picture's edge."""
    hit, area, shape, x, y = draws.T
    ratio = np.exp(np.log(3) * (2 * shape - 1))
    area = 0.02 + 0.31 * area
    width, height = np.round(size * np.sqrt(area * ratio)), np.round(size * np.sqrt(area / ratio))
    width, height = np.minimum(width, size), np.minimum(height, size)
    left, top = np.floor(x * (size - width + 1)), np.floor(y * (size - height + 1))
    box = np.stack([left, top, left + width, top + height], 1).astype(np.int64)
    box[hit >= share] = 0
    return box


def apply(images: np.ndarray, look: Look) -> None:
    """Change uint8 (N, S, S, 3) in place."""
    for position, image in enumerate(images):
        if look.matrix is not None:
            cv2.transform(image, look.matrix[position], dst=image)
        if look.table is not None:
            cv2.LUT(image, look.table[position], dst=image)
        if look.box is not None:
            left, top, right, bottom = look.box[position]
            image[top:bottom, left:right] = GREY


def trivial_warp(operation: np.ndarray, strength: np.ndarray, size: int) -> np.ndarray:
    """TrivialAugment's geometric operations about the centre, float64 (N, 2, 3) from output to input: shear up to 0.99, translation up to a
    seventh of the side (32 of 224 px), rotation up to 135 degrees."""
    affine = np.tile(np.array([[1.0, 0, 0], [0, 1, 0]]), (len(operation), 1, 1))

    def chosen(name: str) -> np.ndarray:
        return np.where(operation == TRIVIAL.index(name), strength, 0)

    theta = np.deg2rad(135 * chosen("rotate"))
    affine[:, 0, 0] = affine[:, 1, 1] = np.cos(theta)
    affine[:, 0, 1], affine[:, 1, 0] = -np.sin(theta) + 0.99 * chosen("shear_x"), np.sin(theta) + 0.99 * chosen("shear_y")
    centre = np.full(2, (size - 1) / 2)
    affine[:, :, 2] = centre - affine[:, :, :2] @ centre + np.stack([chosen("translate_x"), chosen("translate_y")], 1) * size / 7
    return affine
