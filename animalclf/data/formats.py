"""The format of an image file by its first bytes and its name, without decoding it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from PIL import Image

HEAD_BYTES = 64
JPEG, PNG, TIFF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # their first bytes
RAW_SUFFIXES = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw")
"""Raw files of cameras. Most are TIFF files with a small preview, which must not be read in place of the photograph."""
NOT_READ = frozenset(["EPS", "WMF", "GRIB", "BUFR", "HDF5", "MPEG", "FPX", "MIC"])
"""Pillow's readers that start another program, or that only identify a format."""

_WEAK = frozenset(["CUR", "GBR", "DIB", "MCIDAS", "XBM", "XPM"])  # their first bytes occur in files that are not images
_NETPBM = re.compile(rb"P[1-6]\s+[#\d]|P7\n|P[fF]\s+\d")
_HEIF_BRANDS, _JPEG_XL = (b"hei", b"hev", b"mif", b"msf"), (b"\xff\x0a", b"\0\0\0\x0cJXL ")
_MAGIC: dict[str, bytes | tuple[bytes, ...]] = {
    "PNG": PNG,
    "TIFF": TIFF,
    "GIF": b"GIF8",
    "WEBP": b"RIFF",
    "AVIF": b"ftypavi",
}


class UnreadableImage(Exception):
    """A file that cannot be read completely as an image; its text is the reason."""


def image_format(head: bytes) -> str:
    """The format of the image file that begins with `head` (HEAD_BYTES or more), "" for other files. HEIC and JPEG XL
    are named too, although they cannot be read."""
    if _NETPBM.match(head):
        return "PPM"
    if all(byte >= 32 or byte in b"\t\n\v\f\r" for byte in head):
        return ""  # text
    for name, accepts in _accept_functions().items():
        if accepts(head[:16]) is True:
            return name
    if is_heic(head):
        return "HEIC"
    return "JPEG XL" if is_jpeg_xl(head) else ""


def is_heic(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:11].lower() in _HEIF_BRANDS


def is_jpeg_xl(head: bytes) -> bool:
    return head.startswith(_JPEG_XL)


@functools.cache
def pillow_formats() -> tuple[str, ...]:
    """The formats that the installed Pillow reads."""
    Image.init()
    return tuple(name for name in Image.ID if name not in NOT_READ)


@functools.cache
def _accept_functions() -> dict[str, Callable[[bytes], bool | str]]:
    """Pillow's tests of the first 16 bytes, by format. They return text if a format is known but not supported."""
    functions = {name: Image.OPEN[name][1] for name in pillow_formats() if name not in _WEAK}
    return {name: accepts for name, accepts in functions.items() if accepts}


def unknown_format(data: bytes) -> str:
    """The reason for bytes that no reader knows."""
    head, brand = data[:512].lstrip().lower(), data[8:12].lower()
    if is_heic(data):
        return "HEIC image, which is not supported; convert it to JPEG or PNG"
    if data[4:8] == b"ftyp" and brand[:3] != b"avi":
        return "video, not an image"
    if is_jpeg_xl(data):
        return "JPEG XL image, which is not supported; convert it to JPEG or PNG"
    for format_name, magic in _MAGIC.items():
        if data.startswith(magic) or data[4:].startswith(magic):
            return f"damaged: incomplete header of a {format_name} file ({len(data):,} bytes)"
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
