"""Bytes of an image file to RGB pixels, strictly: a damaged file is refused with the reason. Plain Python.

`decode` is the one boundary to the libraries that read image files: each of their errors becomes an UnreadableImage
with a reason.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import cv2
import numpy as np
import simplejpeg
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from animalclf.data import formats, jpeg, png, truncation
from animalclf.data.formats import UnreadableImage
from animalclf.data.rgb import EXIF_ORIENTATION, TIFF_BITS, eight_bits, orientation_of, to_rgb, upright

MAX_PIXELS = 100_000_000
# A file with more pixels than that for each of its bytes may take at most this memory (photographs have 1 to 20).
MAX_PIXELS_PER_BYTE, MAX_BYTES = 1000, 2**30
_BYTES_PER_PIXEL = {"JPEG2000": 25, "WEBP": 17, "AVIF": 13}  # of memory while Pillow decodes; at most 9 for others
SINGLE_COLOUR = "single colour"  # the note of an image whose pixels are all equal
_EXTENSIONS = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif"), "JPEG"),
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **{name.lower(): name for name in ("PNG", "WEBP", "BMP", "GIF", "AVIF")},
}
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257  # tags


@dataclass(frozen=True)
class DecodedImage:
    """`image` uint8 (H, W, 3) RGB, upright; `format` as Pillow names it; `note`: conversions and oddities ("" if
    none); `height` and `width` of the file's image in pixels, upright, which has `scale` times the sides of `image`."""

    image: np.ndarray
    format: str
    note: str
    height: int
    width: int
    scale: int = 1


def decode(data: bytes, *, name: str = "", max_pixels: int = MAX_PIXELS, min_side: int = 0) -> DecodedImage:
    """Decode an image file. Applies the EXIF orientation; composites transparency on white; converts grey, palette,
    CMYK, 16 bits and floating point; takes the first frame of an animation.

    `name`: the file's, to note an extension that does not fit the content. `min_side`: decode a JPEG image at a half, a
    quarter or an eighth of its sides if the shorter one is at least `min_side` then; 0: never. Raises UnreadableImage.
    """
    if not data:
        raise UnreadableImage("empty file")
    if name.lower().endswith(formats.RAW_SUFFIXES) and not data.startswith((formats.JPEG, formats.PNG)):
        raise UnreadableImage("raw image of a camera, which is not supported; convert it to JPEG, PNG or TIFF")
    with _boundary():
        is_jpeg = data.startswith(formats.JPEG)
        decoded = _decode_jpeg(data, max_pixels, min_side) if is_jpeg else _decode(data, max_pixels)
        if not decoded.image.size:
            raise UnreadableImage("no pixels")
        notes = [decoded.note]
        # Blocks of different pixels may have equal means.
        if _is_single_colour(decoded.image) and (
            decoded.scale == 1 or SINGLE_COLOUR in decode(data, max_pixels=max_pixels).note
        ):
            notes.append(SINGLE_COLOUR)
    extension = name.rpartition(".")[2]
    if _EXTENSIONS.get(extension.lower(), decoded.format) != decoded.format:
        notes.append(f"{decoded.format} named .{extension}")
    return replace(decoded, note=", ".join(filter(None, notes)))


def from_pil(image: Image.Image) -> np.ndarray:
    """The pixels uint8 (H, W, 3) of a Pillow image, upright, converted as `decode` converts a file's. Raises
    UnreadableImage."""
    with _boundary(), warnings.catch_warnings(action="ignore"):
        pixels, _ = to_rgb(image)
    if not pixels.size:
        raise UnreadableImage("no pixels")
    return pixels


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


def _decode_jpeg(data: bytes, max_pixels: int, min_side: int) -> DecodedImage:
    """Twice as fast as Pillow, and strict: Pillow accepts damaged Huffman codes and fills the rest with grey."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except KeyError:  # a chroma subsampling that simplejpeg does not name
        return _decode(data, max_pixels)
    except ValueError as error:
        if "subsampling" in str(error):  # one that TurboJPEG does not know; libjpeg does
            return _decode(data, max_pixels)
        raise UnreadableImage(jpeg.reason(str(error), data)) from None
    _check_size(width, height, max_pixels)
    scale = jpeg.scale_for(data, height, width, min_side)
    try:
        image, note = jpeg.decode(data, "CMYK" if colours in ("CMYK", "YCCK") else "RGB", scale)
    except ValueError as error:
        raise UnreadableImage(jpeg.reason(str(error), data)) from None
    conversions: list[str] = []
    if image.shape[2] == 4:  # inverted, as Adobe's programs write CMYK
        image, conversions = to_rgb(Image.fromarray(~image, "CMYK"))
    orientation = 1
    if jpeg.has_exif(data):
        with suppress(Exception), warnings.catch_warnings(action="ignore"):  # the metadata may be damaged
            orientation = orientation_of(Image.open(io.BytesIO(data), formats=("JPEG",)))
    image, rotation = upright(image, orientation)
    if 5 <= orientation <= 8:
        height, width = width, height
    return DecodedImage(image, "JPEG", ", ".join(filter(None, [note, *rotation, *conversions])), height, width, scale)


# ---------------------------------------------------------------------------------------------------- all other formats


def _decode(data: bytes, max_pixels: int) -> DecodedImage:
    image, format_name, notes = _decode_all(data, max_pixels)
    return DecodedImage(image, format_name, ", ".join(notes), image.shape[0], image.shape[1])


def _decode_all(data: bytes, max_pixels: int) -> tuple[np.ndarray, str, list[str]]:
    """Pillow, and a second attempt if it gives up: without metadata, or with OpenCV."""
    try:
        return _decode_pillow(data, max_pixels)
    except UnreadableImage:
        raise
    except Exception as error:  # noqa: BLE001 - see _boundary
        first = UnreadableImage(
            formats.unknown_format(data) if isinstance(error, UnidentifiedImageError) else _reason(error)
        )
    try:
        with warnings.catch_warnings(action="ignore"):
            if data.startswith(formats.PNG):
                image, format_name, notes = _decode_pillow(png.without_metadata(data), max_pixels)
                return image, format_name, [*notes, "metadata ignored"]
            if data.startswith(formats.TIFF):
                _pixel_tags(data)
                pixels, rotation = _opencv_pixels(data, max_pixels)
                image, note = eight_bits(pixels)
                return _flatten(image), "TIFF", [*rotation, note] if note else rotation
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
        _check_ratio(file, len(data))
        _check_complete(file, data)
        image, notes = to_rgb(file)
        format_name = "JPEG" if file.format == "MPO" else file.format or "unknown"
        if _bits(file, data) > 8 and image.max() < 2**4:
            # Pillow takes the high byte of channels of 16 bits, in which data of 12 bits are black.
            scaled, note = eight_bits(_opencv_pixels(data, max_pixels, orientation_of(file))[0])
            image, notes = _flatten(scaled), [*notes, note]
        if file.format != "MPO" and _is_animated(file):
            notes.insert(0, "animated, first frame used")
        return image, format_name, notes


def _check_complete(file: Image.Image, data: bytes) -> None:
    """Raise UnreadableImage for a truncated file that Pillow accepts, and ValueError for a TIFF file in
    which it does not see a tag that the pixels depend on."""
    if data.startswith(formats.TIFF):
        if _pixel_tags(data) - set(getattr(file, "tag_v2", ())):
            raise ValueError("damaged tags")
    elif (file.format == "JPEG2000" and truncation.is_cut_jpeg2000(data)) or (
        file.format == "PCX" and truncation.is_cut_pcx(data)
    ):
        raise UnreadableImage(f"truncated: the {file.format} data end too early ({len(data):,} bytes)")
    elif (zeros := truncation.zero_tail(data)) > truncation.max_zeros(file.width * file.height):
        raise UnreadableImage(f"truncated: the last {zeros:,} bytes of the {file.format} data are zero")


def _pixel_tags(data: bytes) -> set[int]:
    """The tags of a TIFF file that its pixels depend on. Raises UnreadableImage if the file ends before the values
    of one."""
    is_complete = {
        tag: complete for tag, complete in truncation.tiff_tags(data).items() if tag in truncation.TIFF_PIXEL_TAGS
    }
    if not all(is_complete.values()):
        raise UnreadableImage(f"truncated: values of TIFF tags are missing ({len(data):,} bytes)")
    return set(is_complete)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UnreadableImage(f"too large: {width} x {height} pixels (limit {max_pixels:,}; data.max_pixels)")


def _check_ratio(file: Image.Image, size: int) -> None:
    """Raise UnreadableImage if a small file would take much memory, or as BMP, which Pillow decodes in Python, much
    time: a bomb, or damaged in its header."""
    pixels = file.width * file.height
    is_expensive = file.format == "BMP" or pixels * _BYTES_PER_PIXEL.get(file.format or "", 9) > MAX_BYTES
    if is_expensive and pixels > MAX_PIXELS_PER_BYTE * size:
        raise UnreadableImage(
            f"too large: {file.width} x {file.height} pixels in {size:,} bytes, a decompression bomb or damaged"
        )


def _is_animated(file: Image.Image) -> bool:
    """Asked after the first frame is decoded, because later frames may be damaged."""
    try:
        return bool(getattr(file, "is_animated", False))
    except Exception:  # noqa: BLE001 - see _boundary
        return True


def _bits(file: Image.Image, data: bytes) -> int:
    """Bits per channel."""
    if data.startswith(formats.PNG):
        return data[24]
    return int(np.max(getattr(file, "tag_v2", {}).get(TIFF_BITS, 8)))


def _opencv_pixels(data: bytes, max_pixels: int, orientation: int = 1) -> tuple[np.ndarray, list[str]]:
    """(H, W) or (H, W, C) in RGB order, of the file's own type, upright, with a note. A TIFF file's own orientation is
    used. Raises ValueError if OpenCV does not read it."""
    if data.startswith(formats.TIFF):
        header = data[:16] if b"+" in data[:4] else data[:8]
        directory, file = TiffImagePlugin.ImageFileDirectory_v2(header), io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        _check_size(directory[_TIFF_WIDTH], directory[_TIFF_HEIGHT], max_pixels)
        orientation = directory.get(EXIF_ORIENTATION, 1)
    elif data.startswith(formats.PNG) and png.is_cut(data):
        raise ValueError("a chunk is longer than the file")  # OpenCV would allocate its length, up to 4 GiB
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None:
        raise ValueError("OpenCV cannot read it")
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        pixels = pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    return upright(pixels, orientation)


def _flatten(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W), (H, W, 3), or (H, W, 4) on white, as (H, W, 3)."""
    if image.ndim == 3 and image.shape[2] not in (3, 4):
        raise ValueError(f"{image.shape[2]} channels")
    return from_pil(Image.fromarray(image))


def _is_single_colour(image: np.ndarray) -> bool:
    corner, centre = image[0, 0], image[image.shape[0] // 2, image.shape[1] // 2]
    if corner.tobytes() != centre.tobytes():  # decides for most images, without a comparison of arrays
        return False
    return bool((image[::16, ::16] == corner).all() and (image == corner).all())
