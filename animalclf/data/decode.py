"""Bytes of a picture file to RGB pixels, strictly: a file that is broken anywhere is refused with the reason. Plain Python.

`decode` and `resize` serve preparation and prediction alike, so that both see the same pixels.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 100_000_000
_EXTENSIONS = {
    "jpg": "JPEG",
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "bmp": "BMP",
    "tif": "TIFF",
    "tiff": "TIFF",
    "gif": "GIF",
}


class BadPicture(Exception):
    """A file that is no whole picture; its text is the reason, in words for people."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture: `image` uint8 (H, W, 3) RGB, upright; `format` as Pillow names it; `note` what was unusual ("" if nothing)."""

    image: np.ndarray
    format: str
    note: str = ""


def decode(data: bytes, *, name: str = "", max_pixels: int = MAX_PIXELS) -> Picture:
    """The whole picture in `data`: EXIF orientation applied, transparency on white, grey, palette, CMYK and 16 bits converted, of an animation the
    first frame. `name` (the file's) only serves to note an extension that lies. Raises BadPicture."""
    if not data:
        raise BadPicture("empty file")
    plain = _plain_jpeg(data, max_pixels)
    if plain is not None and _EXTENSIONS.get(name.rpartition(".")[2].lower(), "JPEG") == "JPEG":
        return Picture(plain, "JPEG")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of size; the size is checked here
            with Image.open(io.BytesIO(data)) as opened:
                _check_size(opened, max_pixels)
                image, notes = _read(opened, data)
                found = "JPEG" if opened.format == "MPO" else opened.format or "unknown"
    except UnidentifiedImageError:
        raise BadPicture(_what_instead(data)) from None
    except Image.DecompressionBombError as error:
        raise BadPicture(f"too large: {error}") from None
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        IndexError,
        TypeError,
        KeyError,
        OverflowError,
        MemoryError,
    ) as error:
        # What Pillow's readers raise for damaged files differs by format; all of it means: this file does not decode.
        raise BadPicture(f"damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from None
    expected = _EXTENSIONS.get(name.rpartition(".")[2].lower())
    if expected and found != expected:
        notes.append(f"{found} named .{name.rpartition('.')[2]}")
    return Picture(image, found, ", ".join(notes))


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, 3) to uint8 (size, size, 3), or grey (H, W) to (size, size). Both sides are stretched to the square as Keras's target_size does;
    averaged over areas where it shrinks, cubic where it grows."""
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return np.ascontiguousarray(image)
    if height < size or width < size:
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    # OpenCV averages whole pixels much faster than parts of them: to the nearest multiple of the size first (which moves values by 0.2 of 255 on
    # average), then the average of whole pixels.
    down, across = (max(2, round(side / size)) if side > size else 1 for side in (height, width))
    multiple = cv2.resize(image, (across * size, down * size), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(multiple, (size, size), interpolation=cv2.INTER_AREA)


def _check_size(opened: Image.Image, max_pixels: int) -> None:
    if opened.width * opened.height > max_pixels:
        raise BadPicture(f"too large: {opened.width} x {opened.height} pixels (limit {max_pixels:,}; data.max_pixels)")


def _plain_jpeg(data: bytes, max_pixels: int) -> np.ndarray | None:
    """Pixels of a whole JPEG file in which there is nothing for Pillow to look at (which takes a fifth of the time); None for all others."""
    if not data.startswith(b"\xff\xd8\xff") or not {b"Exif", b"MPF\0"}.isdisjoint(_segments(data)):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=True)
        if colours not in ("YCbCr", "Gray") or height * width > max_pixels:
            return None
        return np.ascontiguousarray(
            simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=False, fastupsample=False, strict=True)
        )
    except ValueError:
        return None  # Pillow, and then simplejpeg again, say why


def _segments(data: bytes) -> list[bytes]:
    """The first four bytes of each segment of a JPEG file that stands before its picture: of its metadata, what kind they are. "Exif", so that
    Pillow looks, where the segments do not lead to the picture one after the other."""
    found, at = [], 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
        found.append(data[at + 4 : at + 8])
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return found if data[at : at + 2] == b"\xff\xda" else [b"Exif"]


def _read(opened: Image.Image, data: bytes) -> tuple[np.ndarray, list[str]]:
    """Pixels uint8 (H, W, 3), upright, and notes."""
    notes = []
    if opened.format == "JPEG" and opened.mode in ("RGB", "L"):
        # Twice as fast as Pillow, and its strict mode refuses what libjpeg would paint over in grey.
        try:
            image = simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=False, fastupsample=False, strict=True)
        except ValueError as error:
            raise BadPicture(_jpeg_reason(str(error), data)) from None
        turn = opened.getexif().get(0x0112, 1)
        if turn != 1:
            notes.append("turned upright by its EXIF tag")
            image = np.asarray(_upright(Image.fromarray(image), turn))
        return np.ascontiguousarray(image), notes
    if getattr(opened, "is_animated", False) and opened.format != "MPO":
        notes.append("animated, first frame used")
        opened.seek(0)
    image, more = _converted(opened)
    return image, notes + more


def from_pil(image: Image.Image) -> np.ndarray:
    """The pixels uint8 (H, W, 3) of a Pillow image, upright, converted as `decode` converts a file's. Raises BadPicture."""
    try:
        return _converted(image)[0]
    except (OSError, ValueError, SyntaxError) as error:
        raise BadPicture(f"damaged: {error}") from error


def _converted(opened: Image.Image) -> tuple[np.ndarray, list[str]]:
    """Pixels uint8 (H, W, 3) of an image in any mode, upright, and notes."""
    notes = []
    opened.load()
    mode = opened.mode
    if opened.getexif().get(0x0112, 1) != 1:
        notes.append("turned upright by its EXIF tag")
    upright = ImageOps.exif_transpose(opened)
    if mode in ("I", "F") or mode.startswith("I;16"):
        notes.append("16 bits reduced to 8" if mode != "F" else "floating point scaled to 8 bits")
        return np.repeat(_eight_bits(np.asarray(upright), mode)[:, :, None], 3, axis=2), notes
    if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(f"{mode} converted")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in opened.info:
        notes.append("transparency on white")
        layer = upright.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        upright = Image.alpha_composite(white, layer)
    return np.ascontiguousarray(np.asarray(upright.convert("RGB"))), notes


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """Undo an EXIF orientation (2 to 8)."""
    methods = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return image.transpose(methods[orientation]) if orientation in methods else image


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """16-bit or floating point grey as uint8, by scale: clipping, Pillow's way, would turn most of such a picture white."""
    if mode == "F":
        low, high = float(values.min()), float(values.max())
        return ((values - low) * (255 / max(high - low, 1e-12))).round().astype(np.uint8)
    return (np.clip(values, 0, 65535).astype(np.uint32) * 255 // 65535).astype(np.uint8)


def _jpeg_reason(error: str, data: bytes) -> str:
    if "remature end" in error or b"\xff\xd9" not in data[-1024:]:
        return f"truncated: the JPEG data ends too early ({len(data):,} bytes)"
    return f"damaged: {error}"


def _what_instead(data: bytes) -> str:
    """The reason for bytes that no reader knows."""
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")) or b"<html" in head:
        return "HTML page, not a picture"
    if head.startswith(b"<svg"):
        return "SVG drawing, not a picture of pixels"
    if not data.strip(b"\0"):
        return f"{len(data):,} zero bytes, not a picture"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in data[:256]):
        return "text, not a picture"
    return f"not a picture of a known format ({len(data):,} bytes)"
