"""Pixels of any mode, type and orientation to upright uint8 RGB, with notes about what was converted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
from PIL import Image

from animalclf.data.formats import UnreadableImage

EXIF_ORIENTATION, TIFF_BITS = 0x0112, 258  # tags
_TIFF_SAMPLE_FORMAT, _GDAL_NODATA = 339, 42113
_NODATA = (-9999, -99999, -32768, -(2**31))  # usual values of missing pixels in signed data
_MAX_FLOAT = 1e30  # floats beyond are missing pixels too
# Pixels that are converted at a time: the steps of a conversion of all pixels would take 20 bytes each.
_BAND_PIXELS = 2**20


def to_rgb(file: Image.Image) -> tuple[np.ndarray, list[str]]:
    """Pixels uint8 (H, W, 3) of an image in any mode, upright, and notes."""
    file.load()
    image, notes = _rgb(file)
    image, rotation = upright(image, orientation_of(file))
    return image, rotation + notes


def _rgb(file: Image.Image) -> tuple[np.ndarray, list[str]]:
    mode = file.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        values, tags = np.asarray(file), getattr(file, "tag_v2", {})
        if mode == "I" and TIFF_BITS in tags and np.all(np.equal(tags.get(_TIFF_SAMPLE_FORMAT, 1), 1)):
            values = values.view(np.uint32)  # Pillow has no unsigned mode
        grey, note = eight_bits(values, str(tags.get(_GDAL_NODATA, "")))
        return np.repeat(grey[:, :, None], 3, axis=2), [note]
    if mode == "La":  # which Pillow converts to LA only
        return _rgb(file.convert("LA"))
    notes = [f"{mode} converted"] if mode in ("CMYK", "YCbCr", "LAB", "HSV") else []
    target = "RGB"
    if mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in file.info:
        opaque = any(band.convert("RGBA").getchannel("A").getextrema()[1] for band in _bands(file))
        target = "RGBA on white" if opaque else "RGBA"
        notes.append("transparency on white" if opaque else "transparent everywhere, alpha ignored")
    pixels, top = np.empty((file.height, file.width, 3), np.uint8), 0
    for band in _bands(file):
        layer = band.convert(target.partition(" ")[0])
        if target == "RGBA on white":
            layer = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        pixels[top : top + band.height] = np.asarray(layer)[:, :, :3]
        top += band.height
    return pixels, notes


def _bands(image: Image.Image) -> Iterator[Image.Image]:
    """The image from top to bottom, in parts of _BAND_PIXELS or less."""
    rows = max(1, _BAND_PIXELS // max(1, image.width))
    if rows >= image.height > 0:
        yield image
        return
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def orientation_of(file: Image.Image) -> int:
    """The EXIF orientation, 1 if the metadata are damaged."""
    try:
        orientation = file.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - see decode._boundary
        return 1
    return orientation if isinstance(orientation, int) else 1


def upright(image: np.ndarray, orientation: int) -> tuple[np.ndarray, list[str]]:
    """Undo an EXIF orientation (2 to 8) of (H, W, 3), with a note."""
    if not 2 <= orientation <= 8:
        return image, []
    if orientation >= 5:
        image = cv2.transpose(image)  # in a tenth of the time of a NumPy copy
    if orientation in (2, 3, 6, 7):
        image = cv2.flip(image, 1)
    if orientation in (3, 4, 7, 8):
        image = cv2.flip(image, 0)
    return image, ["rotated by its EXIF orientation"]


def eight_bits(values: np.ndarray, nodata: str = "") -> tuple[np.ndarray, str]:
    """Values of any type as uint8, scaled over those that are finite and not `nodata` (GDAL's tag), and a note. Pillow
    clips, which would turn most of such an image white or black. Other values become 0.

    Integers of 0 to 65,535 are scaled from 16 bits, or from as many as they use if that is at most 12. All others
    are scaled from their minimum to their maximum. Raises UnreadableImage if no value is left.
    """
    if values.dtype == np.uint8:
        return values, ""
    rows = max(1, _BAND_PIXELS // max(1, values[:1].size))
    bands = [slice(top, top + rows) for top in range(0, len(values), rows)]
    missing: set[float] = set()
    if values.dtype.kind != "u":
        low, _, _ = _valid_range([values[band] for band in bands], missing)
        missing = {float(value) for value in _NODATA if low == value}
        with suppress(ValueError):
            missing.add(float(nodata.strip("\0 ")))
    low, high, complete = _valid_range([values[band] for band in bands], missing)
    if low is None:
        raise UnreadableImage("no finite values")
    if values.dtype.kind in "ui":
        bits = 8 * values.dtype.itemsize
        if low >= 0 and high <= 65535:
            bits = 16 if high >= 2**12 else max(8, int(high).bit_length())
        note = f"scaled from {bits} bits"
    else:
        bits, note = 0, "scaled from floating point"
    pixels = np.empty(values.shape, np.uint8)
    for band in bands:
        valid = _is_valid(values[band], missing)
        pixels[band] = np.where(valid, _scaled(np.where(valid, values[band], low), low, high, bits), 0)
    return pixels, note if complete else f"{note}, missing values black"


def _is_valid(values: np.ndarray, missing: set[float]) -> np.ndarray:
    """Which values are finite, small enough and not `missing`, bool of their shape."""
    valid = np.isfinite(values)
    if values.dtype.kind != "u":
        valid &= np.abs(values, dtype=np.float64) < _MAX_FLOAT
        valid &= ~np.isin(values, list(missing))
    return valid


def _valid_range(bands: list[np.ndarray], missing: set[float]) -> tuple[Any, Any, bool]:
    """Minimum and maximum of the valid values, None without any, and whether all are valid."""
    lows, highs, complete = [], [], True
    for band in bands:
        valid = _is_valid(band, missing)
        complete = complete and bool(valid.all())
        if valid.any():
            lows.append(band[valid].min())
            highs.append(band[valid].max())
    return (min(lows), max(highs), complete) if lows else (None, None, complete)


def _scaled(values: np.ndarray, low: Any, high: Any, bits: int) -> np.ndarray:
    """Values from `low` to `high` as numbers from 0 to 255: from `bits` bits if that is at most 16, else from their
    minimum to their maximum (`bits` 0: floats)."""
    if low >= 0 and high <= 65535 and bits and bits <= 16:
        return np.clip(values, 0, 65535).astype(np.uint32) * 255 // (2**bits - 1)
    least = 1 if bits else 1e-12
    scaled = (values - float(low)) * (255 / max(float(high) - float(low), least))
    return scaled.round()
