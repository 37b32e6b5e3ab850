"""Bytes of an image file to RGB pixels, strictly: a damaged file is refused with the reason. Plain Python.

`decode` and `resize` are used by preparation and prediction alike, so that both see the same pixels. `decode` is the
one boundary to the libraries that read image files: each of their errors becomes an UnreadableImage with a reason.
"""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from animalclf.data import formats, jpeg, truncation
from animalclf.utils.canvas import PADDING, sides_on_canvas

MAX_PIXELS = 100_000_000
SINGLE_COLOUR = "single colour"  # the note of an image whose pixels are all equal
_JPEG, _PNG, _TIFF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAGIC: dict[str, bytes | tuple[bytes, ...]] = {
    "PNG": _PNG,
    "TIFF": _TIFF,
    "GIF": b"GIF8",
    "WEBP": b"RIFF",
    "AVIF": b"ftypavi",
}
_EXTENSIONS = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif"), "JPEG"),
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **{name.lower(): name for name in ("PNG", "WEBP", "BMP", "GIF", "AVIF")},
}
_EXIF_ORIENTATION, _TIFF_WIDTH, _TIFF_HEIGHT = 0x0112, 256, 257
_TIFF_BITS, _TIFF_SAMPLE_FORMAT, _GDAL_NODATA = 258, 339, 42113
_NODATA = (-9999, -99999, -32768, -(2**31))  # usual values of missing pixels in signed data
_MAX_FLOAT = 1e30  # floats beyond are missing pixels too


class UnreadableImage(Exception):
    """A file that is not a whole image; its text is the reason."""


@dataclass(frozen=True)
class DecodedImage:
    """`image` uint8 (H, W, 3) RGB, upright; `format` as Pillow names it; `note`: conversions and oddities ("" if
    none)."""

    image: np.ndarray
    format: str
    note: str = ""


def decode(data: bytes, *, name: str = "", max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode an image file. Applies the EXIF orientation; composites transparency on white; converts grey, palette,
    CMYK, 16 bits and floating point; takes the first frame of an animation.

    `name`: the file's, to note an extension that does not fit the content. Raises UnreadableImage.
    """
    if not data:
        raise UnreadableImage("empty file")
    if name.lower().endswith(formats.RAW_SUFFIXES) and not data.startswith((_JPEG, _PNG)):
        raise UnreadableImage("raw image of a camera, which is not supported; convert it to JPEG, PNG or TIFF")
    with _boundary():
        image, format_name, notes = (
            _decode_jpeg(data, max_pixels) if data.startswith(_JPEG) else _decode(data, max_pixels)
        )
        if not image.size:
            raise UnreadableImage("no pixels")
        if _is_single_colour(image):
            notes.append(SINGLE_COLOUR)
    extension = name.rpartition(".")[2]
    if _EXTENSIONS.get(extension.lower(), format_name) != format_name:
        notes.append(f"{format_name} named .{extension}")
    return DecodedImage(image, format_name, ", ".join(notes))


def from_pil(image: Image.Image) -> np.ndarray:
    """The pixels uint8 (H, W, 3) of a Pillow image, upright, converted as `decode` converts a file's. Raises
    UnreadableImage."""
    with _boundary(), warnings.catch_warnings(action="ignore"):
        pixels, _ = _converted(image)
    if not pixels.size:
        raise UnreadableImage("no pixels")
    return pixels


def stored_image(image: np.ndarray, size: int, resize_mode: str) -> np.ndarray:
    """uint8 (H, W, 3) as it is stored, uint8 (size, size, 3): stretched to the square (`resize_mode` "squash"), or with
    its shape kept ("keep") in the upper left of a canvas (utils/canvas.py)."""
    if resize_mode == "squash":
        return resize(image, size)
    height, width = sides_on_canvas(image.shape[0], image.shape[1], size)
    canvas = np.full((size, size, 3), PADDING, np.uint8)
    canvas[:height, :width] = _stretched(image, height, width)
    return canvas


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, 3) to uint8 (size, size, 3), or grey (H, W) to (size, size). Both sides are stretched to the square,
    as by Keras's target_size; area averaging if the image shrinks, cubic interpolation if it grows."""
    return _stretched(image, size, size)


def _stretched(image: np.ndarray, height: int, width: int) -> np.ndarray:
    old_height, old_width = image.shape[:2]
    if (old_height, old_width) == (height, width):
        return np.ascontiguousarray(image)
    if old_height < height or old_width < width:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    # OpenCV averages whole pixels much faster than fractions of pixels. So the image is first resized to the nearest
    # multiples of the new sides, which changes values by 0.2 of 255 on average.
    factor_y, factor_x = (
        max(2, round(old / new)) if old > new else 1 for old, new in ((old_height, height), (old_width, width))
    )
    multiple = cv2.resize(image, (factor_x * width, factor_y * height), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(multiple, (width, height), interpolation=cv2.INTER_AREA)


@contextmanager
def _boundary() -> Iterator[None]:
    """Turn every exception of a library into an UnreadableImage."""
    try:
        yield
    except UnreadableImage:
        raise
    except Exception as error:
        # What readers raise for damaged files differs by format and library.
        raise UnreadableImage(_reason(error)) from error


def _reason(error: Exception) -> str:
    """One printable line."""
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {error}"
    known = isinstance(error, OSError | ValueError | SyntaxError) and str(error).strip()
    text = str(error).strip() if known else f"{type(error).__name__} {error}".strip()
    return f"damaged: {''.join(filter(str.isprintable, text.splitlines()[0]))[:200]}"


# --------------------------------------------------------------------------------------------------------------- JPEG


def _decode_jpeg(data: bytes, max_pixels: int) -> tuple[np.ndarray, str, list[str]]:
    """Twice as fast as Pillow, and strict: Pillow accepts damaged Huffman codes and fills the rest with grey."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except KeyError:  # a chroma subsampling that simplejpeg does not name
        return _decode(data, max_pixels)
    except ValueError as error:
        if "subsampling" in str(error):  # one that TurboJPEG does not know; libjpeg does
            return _decode(data, max_pixels)
        raise UnreadableImage(_jpeg_reason(str(error), data)) from None
    _check_size(width, height, max_pixels)
    try:
        # Pillow converts CMYK; here it is only checked.
        image, note = jpeg.decode(data, "CMYK" if colours in ("CMYK", "YCCK") else "RGB")
    except ValueError as error:
        raise UnreadableImage(_jpeg_reason(str(error), data)) from None
    notes = [note] if note else []
    if image.shape[2] == 4:
        image, format_name, conversions = _decode(data, max_pixels)
        return image, format_name, notes + conversions
    orientation = 1
    if jpeg.has_exif(data):
        with suppress(Exception), warnings.catch_warnings(action="ignore"):  # the metadata may be damaged
            orientation = _orientation(Image.open(io.BytesIO(data), formats=("JPEG",)))
    image, rotation = _upright(image, orientation)
    return image, "JPEG", notes + rotation


def _jpeg_reason(error: str, data: bytes) -> str:
    if "remature end" in error or b"\xff\xd9" not in data[-1024:]:
        return f"truncated: the JPEG data ends too early ({len(data):,} bytes)"
    return f"damaged: {error}"


# ---------------------------------------------------------------------------------------------------- all other formats


def _decode(data: bytes, max_pixels: int) -> tuple[np.ndarray, str, list[str]]:
    """Pillow, and a second attempt if it gives up: without metadata, or with OpenCV."""
    try:
        return _decode_pillow(data, max_pixels)
    except UnreadableImage:
        raise
    except Exception as error:  # noqa: BLE001 - see _boundary
        first = UnreadableImage(_unknown_format(data) if isinstance(error, UnidentifiedImageError) else _reason(error))
    try:
        with warnings.catch_warnings(action="ignore"):
            if data.startswith(_PNG):
                image, format_name, notes = _decode_pillow(_without_metadata(data), max_pixels)
                return image, format_name, [*notes, "metadata ignored"]
            if data.startswith(_TIFF):
                _whole_tags(data)
                pixels, rotation = _opencv_pixels(data, max_pixels)
                image, note = _eight_bits(pixels)
                return _flattened(image), "TIFF", [*rotation, note] if note else rotation
    except UnreadableImage:
        raise
    except Exception:  # noqa: BLE001 - see _boundary
        raise first from None
    raise first


def _decode_pillow(data: bytes, max_pixels: int) -> tuple[np.ndarray, str, list[str]]:
    # Pillow warns of odd metadata, and of the size, which is checked here.
    with (
        warnings.catch_warnings(action="ignore"),
        Image.open(io.BytesIO(data), formats=formats.pillow_formats()) as file,
    ):
        _check_size(file.width, file.height, max_pixels)
        _check_whole(file, data)
        image, notes = _converted(file)
        format_name = "JPEG" if file.format == "MPO" else file.format or "unknown"
        if _bits(file, data) > 8 and image.max() < 2**4:
            # Pillow takes the high byte of channels of 16 bits, in which data of 12 bits are black.
            scaled, note = _eight_bits(_opencv_pixels(data, max_pixels, _orientation(file))[0])
            image, notes = _flattened(scaled), [*notes, note]
        if file.format != "MPO" and _is_animated(file):
            notes.insert(0, "animated, first frame used")
        return image, format_name, notes


def _check_whole(file: Image.Image, data: bytes) -> None:
    """Raise UnreadableImage for a truncated file that Pillow accepts, and ValueError for a TIFF file in
    which it does not see a tag that the pixels depend on."""
    if data.startswith(_TIFF):
        if _whole_tags(data) - set(getattr(file, "tag_v2", ())):
            raise ValueError("damaged tags")
    elif (file.format == "JPEG2000" and truncation.is_cut_jpeg2000(data)) or (
        file.format == "PCX" and truncation.is_cut_pcx(data)
    ):
        raise UnreadableImage(f"truncated: the {file.format} data end too early ({len(data):,} bytes)")


def _whole_tags(data: bytes) -> set[int]:
    """The tags of a TIFF file that its pixels depend on. Raises UnreadableImage if the file ends before the values
    of one."""
    within = {tag: whole for tag, whole in truncation.tiff_tags(data).items() if tag in truncation.TIFF_PIXEL_TAGS}
    if not all(within.values()):
        raise UnreadableImage(f"truncated: values of TIFF tags are missing ({len(data):,} bytes)")
    return set(within)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UnreadableImage(f"too large: {width} x {height} pixels (limit {max_pixels:,}; data.max_pixels)")


def _is_animated(file: Image.Image) -> bool:
    """Asked after the first frame is decoded, because later frames may be damaged."""
    try:
        return bool(getattr(file, "is_animated", False))
    except Exception:  # noqa: BLE001 - see _boundary
        return True


def _bits(file: Image.Image, data: bytes) -> int:
    """Bits of a channel."""
    if data.startswith(_PNG):
        return data[24]
    return int(np.max(getattr(file, "tag_v2", {}).get(_TIFF_BITS, 8)))


def _converted(file: Image.Image) -> tuple[np.ndarray, list[str]]:
    """Pixels uint8 (H, W, 3) of an image in any mode, upright, and notes."""
    file.load()
    image, notes = _rgb(file)
    image, rotation = _upright(image, _orientation(file))
    return image, rotation + notes


def _rgb(file: Image.Image) -> tuple[np.ndarray, list[str]]:
    mode = file.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        values, tags = np.asarray(file), getattr(file, "tag_v2", {})
        if mode == "I" and _TIFF_BITS in tags and np.all(np.equal(tags.get(_TIFF_SAMPLE_FORMAT, 1), 1)):
            values = values.view(np.uint32)  # Pillow has no unsigned mode
        grey, note = _eight_bits(values, str(tags.get(_GDAL_NODATA, "")))
        return np.repeat(grey[:, :, None], 3, axis=2), [note]
    notes = [f"{mode} converted"] if mode in ("CMYK", "YCbCr", "LAB", "HSV") else []
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in file.info:
        layer = file.convert("RGBA")
        if layer.getchannel("A").getextrema()[1] == 0:
            return np.ascontiguousarray(np.asarray(layer)[:, :, :3]), [*notes, "transparent everywhere, alpha ignored"]
        notes.append("transparency on white")
        file = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.ascontiguousarray(np.asarray(file.convert("RGB"))), notes


def _orientation(file: Image.Image) -> int:
    """The EXIF orientation, 1 if the metadata are damaged."""
    try:
        orientation = file.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - see _boundary
        return 1
    return orientation if isinstance(orientation, int) else 1


def _upright(image: np.ndarray, orientation: int) -> tuple[np.ndarray, list[str]]:
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


def _without_metadata(data: bytes) -> bytes:
    """A PNG file with only the chunks of its pixels and its EXIF data."""
    parts, position = [_PNG], len(_PNG)
    while position + 12 <= len(data):
        stop = position + 12 + int.from_bytes(data[position : position + 4])
        if data[position + 4 : position + 8] in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            parts.append(data[position:stop])
        elif data[position + 4 : position + 8] == b"eXIf":  # also with a wrong checksum
            parts += [data[position : stop - 4], zlib.crc32(data[position + 4 : stop - 4]).to_bytes(4)]
        position = stop
    return b"".join(parts)


def _opencv_pixels(data: bytes, max_pixels: int, orientation: int = 1) -> tuple[np.ndarray, list[str]]:
    """(H, W) or (H, W, C) in RGB order, of the file's own type, upright, with a note. A TIFF file's own orientation is
    used. Raises ValueError if OpenCV does not read it."""
    if data.startswith(_TIFF):
        header = data[:16] if b"+" in data[:4] else data[:8]
        directory, file = TiffImagePlugin.ImageFileDirectory_v2(header), io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        _check_size(directory[_TIFF_WIDTH], directory[_TIFF_HEIGHT], max_pixels)
        orientation = directory.get(_EXIF_ORIENTATION, 1)
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None:
        raise ValueError("OpenCV cannot read it")
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        pixels = pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    return _upright(pixels, orientation)


def _flattened(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W), (H, W, 3), or (H, W, 4) on white, as (H, W, 3)."""
    if image.ndim == 3 and image.shape[2] not in (3, 4):
        raise ValueError(f"{image.shape[2]} channels")
    return from_pil(Image.fromarray(image))


def _eight_bits(values: np.ndarray, nodata: str = "") -> tuple[np.ndarray, str]:
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


def _is_single_colour(image: np.ndarray) -> bool:
    corner, centre = image[0, 0], image[image.shape[0] // 2, image.shape[1] // 2]
    if corner.tobytes() != centre.tobytes():  # of most images, and at once
        return False
    return bool((image[::16, ::16] == corner).all() and (image == corner).all())


def _unknown_format(data: bytes) -> str:
    """The reason for bytes that no reader knows."""
    head, brand = data[:512].lstrip().lower(), data[8:12].lower()
    if formats.is_heic(data):
        return "HEIC image, which is not supported; convert it to JPEG or PNG"
    if data[4:8] == b"ftyp" and brand[:3] != b"avi":
        return "video, not an image"
    if formats.is_jpeg_xl(data):
        return "JPEG XL image, which is not supported; convert it to JPEG or PNG"
    for format_name, magic in _MAGIC.items():
        if data.startswith(magic) or data[4:].startswith(magic):
            return f"damaged: no whole header of a {format_name} file ({len(data):,} bytes)"
    if b"<svg" in head:
        return "SVG drawing, not an image of pixels"
    if head.startswith((b"%pdf", b"%!ps", b"\xc5\xd0\xd3\xc6")):
        return "PDF or PostScript document, not an image of pixels"
    if head.startswith(b"version https://git-lfs"):
        return "pointer of Git LFS, not an image; get the file with: git lfs pull"
    if head.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")) or b"<html" in head:
        return "HTML page, not an image"
    if head.startswith((b"pk\x03\x04", b"\x1f\x8b", b"rar!", b"7z\xbc\xaf")):
        return "archive, not an image; unpack it"
    if not data.strip(b"\0"):
        return f"{len(data):,} zero bytes, not an image"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in data[:256]):
        return "text, not an image"
    return f"not an image of a known format ({len(data):,} bytes)"
