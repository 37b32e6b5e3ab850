"""Bytes of an image file to RGB pixels, strictly: a damaged file is refused with the reason. Plain Python.

`decode` and `resize` are used by preparation and prediction alike, so that both see the same pixels.
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
EXIF_ORIENTATION = 0x0112
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
# What Pillow's readers raise for damaged files; it differs by format.
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError, OverflowError, MemoryError)


class UnreadableImage(Exception):
    """A file that is not a whole image; its text is the reason."""


@dataclass(frozen=True)
class DecodedImage:
    """`image` uint8 (H, W, 3) RGB, upright; `format` as Pillow names it; `note`: conversions and oddities ("" without
    any)."""

    image: np.ndarray
    format: str
    note: str = ""


def decode(data: bytes, *, name: str = "", max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode an image file. Applies the EXIF orientation; composites transparency on white; converts grey, palette,
    CMYK and 16 bits; takes the first frame of an animation.

    `name`: the file's, to note an extension that does not fit the content. Raises UnreadableImage.
    """
    if not data:
        raise UnreadableImage("empty file")
    extension = name.rpartition(".")[2]
    expected_format = _EXTENSIONS.get(extension.lower())
    pixels = _plain_jpeg(data, max_pixels)
    if pixels is not None and expected_format in (None, "JPEG"):
        return DecodedImage(pixels, "JPEG")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of the size, which is checked here
            with Image.open(io.BytesIO(data)) as file:
                _check_size(file, max_pixels)
                image, notes = _read(file, data)
                format_name = "JPEG" if file.format == "MPO" else file.format or "unknown"
    except UnidentifiedImageError:
        raise UnreadableImage(_unknown_format(data)) from None
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"too large: {error}") from None
    except _DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableImage(f"damaged: {reason}") from None
    if expected_format and format_name != expected_format:
        notes.append(f"{format_name} named .{extension}")
    return DecodedImage(image, format_name, ", ".join(notes))


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, 3) to uint8 (size, size, 3), or grey (H, W) to (size, size). Both sides are stretched to the square,
    as by Keras's target_size; area averaging where the image shrinks, cubic interpolation where it grows."""
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return np.ascontiguousarray(image)
    if height < size or width < size:
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    # OpenCV averages whole pixels much faster than fractions of pixels. So the image is first resized to the nearest
    # multiple of `size`, which changes values by 0.2 of 255 on average.
    factor_y, factor_x = (max(2, round(side / size)) if side > size else 1 for side in (height, width))
    multiple = cv2.resize(image, (factor_x * size, factor_y * size), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(multiple, (size, size), interpolation=cv2.INTER_AREA)


def _check_size(file: Image.Image, max_pixels: int) -> None:
    if file.width * file.height > max_pixels:
        raise UnreadableImage(f"too large: {file.width} x {file.height} pixels (limit {max_pixels:,}; data.max_pixels)")


def _plain_jpeg(data: bytes, max_pixels: int) -> np.ndarray | None:
    """Pixels of a JPEG file without EXIF data and further images, in a fifth of Pillow's time; None for all other
    files."""
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
        return None  # the slower path gives the reason


def _segments(data: bytes) -> list[bytes]:
    """The first four bytes of each segment before the image data of a JPEG file: the kinds of its metadata. ["Exif"],
    the slower path, where the segments do not lead to the image data."""
    kinds, position = [], 2
    while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] != b"\xda":
        kinds.append(data[position + 4 : position + 8])
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return kinds if data[position : position + 2] == b"\xff\xda" else [b"Exif"]


def _read(file: Image.Image, data: bytes) -> tuple[np.ndarray, list[str]]:
    """Pixels uint8 (H, W, 3), upright, and notes."""
    notes = []
    if file.format == "JPEG" and file.mode in ("RGB", "L"):
        # Twice as fast as Pillow, and strict mode refuses files whose missing part libjpeg would fill with grey.
        try:
            image = simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=False, fastupsample=False, strict=True)
        except ValueError as error:
            raise UnreadableImage(_jpeg_reason(str(error), data)) from None
        orientation = file.getexif().get(EXIF_ORIENTATION, 1)
        if orientation != 1:
            notes.append("rotated by its EXIF orientation")
            image = np.asarray(_upright(Image.fromarray(image), orientation))
        return np.ascontiguousarray(image), notes
    if getattr(file, "is_animated", False) and file.format != "MPO":
        notes.append("animated, first frame used")
        file.seek(0)
    image, conversions = _converted(file)
    return image, notes + conversions


def from_pil(image: Image.Image) -> np.ndarray:
    """The pixels uint8 (H, W, 3) of a Pillow image, upright, converted as `decode` converts a file's. Raises
    UnreadableImage."""
    try:
        return _converted(image)[0]
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImage(f"damaged: {error}") from error


def _converted(file: Image.Image) -> tuple[np.ndarray, list[str]]:
    """Pixels uint8 (H, W, 3) of an image in any mode, upright, and notes."""
    notes = []
    file.load()
    mode = file.mode
    if file.getexif().get(EXIF_ORIENTATION, 1) != 1:
        notes.append("rotated by its EXIF orientation")
    upright = ImageOps.exif_transpose(file)
    if mode in ("I", "F") or mode.startswith("I;16"):
        notes.append("16 bits reduced to 8" if mode != "F" else "floating point scaled to 8 bits")
        return np.repeat(_eight_bits(np.asarray(upright), mode)[:, :, None], 3, axis=2), notes
    if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(f"{mode} converted")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in file.info:
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
    """16-bit or floating point grey as uint8, scaled: Pillow clips, which would turn most of such an image white."""
    if mode == "F":
        low, high = float(values.min()), float(values.max())
        return ((values - low) * (255 / max(high - low, 1e-12))).round().astype(np.uint8)
    return (np.clip(values, 0, 65535).astype(np.uint32) * 255 // 65535).astype(np.uint8)


def _jpeg_reason(error: str, data: bytes) -> str:
    if "remature end" in error or b"\xff\xd9" not in data[-1024:]:
        return f"truncated: the JPEG data ends too early ({len(data):,} bytes)"
    return f"damaged: {error}"


def _unknown_format(data: bytes) -> str:
    """The reason for bytes that no reader knows."""
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")) or b"<html" in head:
        return "HTML page, not an image"
    if head.startswith(b"<svg"):
        return "SVG drawing, not an image of pixels"
    if not data.strip(b"\0"):
        return f"{len(data):,} zero bytes, not an image"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in data[:256]):
        return "text, not an image"
    return f"not an image of a known format ({len(data):,} bytes)"
