"""Pixels of any mode, type and orientation to upright uint8 RGB, with notes about what was converted."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from PIL import Image

from animalclf.data.formats import UnreadableImage

EXIF_ORIENTATION, TIFF_BITS = 0x0112, 258  # tags
_TIFF_SAMPLE_FORMAT, _GDAL_NODATA = 339, 42113
_NODATA = (-9999, -99999, -32768, -(2**31))  # usual values of missing pixels in signed data
_MAX_FLOAT = 1e30  # floats beyond are missing pixels too


def converted(file: Image.Image) -> tuple[np.ndarray, list[str]]:
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
    notes = [f"{mode} converted"] if mode in ("CMYK", "YCbCr", "LAB", "HSV") else []
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in file.info:
        layer = file.convert("RGBA")
        if layer.getchannel("A").getextrema()[1] == 0:
            return np.ascontiguousarray(np.asarray(layer)[:, :, :3]), [*notes, "transparent everywhere, alpha ignored"]
        notes.append("transparency on white")
        file = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.ascontiguousarray(np.asarray(file.convert("RGB"))), notes


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
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image), ["rotated by its EXIF orientation"]


def eight_bits(values: np.ndarray, nodata: str = "") -> tuple[np.ndarray, str]:
    """Values of any type as uint8, scaled over those that are finite and not `nodata` (GDAL's tag), and a note. Pillow
    clips, which would turn most of such an image white or black. Other values become 0.

    Integers of 0 to 65,535 are scaled from 16 bits, or from as many as they use if that is at most 12. All others
    are scaled from their minimum to their maximum. Raises UnreadableImage if no value is left.
    """
    if values.dtype == np.uint8:
        return values, ""
    valid = np.isfinite(values)
    if values.dtype.kind != "u":
        valid &= np.abs(values, dtype=np.float64) < _MAX_FLOAT
        missing = {float(value) for value in _NODATA if valid.any() and values[valid].min() == value}
        with suppress(ValueError):
            missing.add(float(nodata.strip("\0 ")))
        valid &= ~np.isin(values, list(missing))
    if not valid.any():
        raise UnreadableImage("no finite values")
    low, high = values[valid].min(), values[valid].max()
    if values.dtype.kind in "ui" and low >= 0 and high <= 65535:
        bits = 16 if high >= 2**12 else max(8, int(high).bit_length())
        scaled = np.clip(values, 0, 65535).astype(np.uint32) * 255 // (2**bits - 1)
        note = f"scaled from {bits} bits"
    elif values.dtype.kind in "ui":
        scaled = ((values - float(low)) * (255 / max(float(high) - float(low), 1))).round()
        note = f"scaled from {8 * values.dtype.itemsize} bits"
    else:
        scaled = ((np.where(valid, values, low) - float(low)) * (255 / max(float(high) - float(low), 1e-12))).round()
        note = "scaled from floating point"
    return np.where(valid, scaled, 0).astype(np.uint8), note if valid.all() else f"{note}, missing values black"
