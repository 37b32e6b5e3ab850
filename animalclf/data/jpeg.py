"""JPEG files to RGB pixels: strict about lost pixels, tolerant of all other faults. Plain Python.

libjpeg reports only the first of its warnings. So a file with a warning is repaired (standard header segments, no bytes
outside of segments, an end marker) and decoded again. A warning that says nothing about the pixels is then gone; a
premature end or a bad Huffman code remains, because the compressed data stay as they are.

A large image can be decoded at a half, a quarter or an eighth of its sides: each pixel is then the mean of a block of
pixels, computed from the block's coefficients. All coefficients are read, so the same damage is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import cv2
import numpy as np
import simplejpeg

START, END = b"\xff\xd8", b"\xff\xd9"
_SOF, _SOS, _APP0, _APP14, _COMMENT = {0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA}, 0xDA, 0xE0, 0xEE, 0xFE
_SEQUENTIAL, _PROGRESSIVE = {0xC0, 0xC1}, {0xC2, 0xCA}
_DCT = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
# All other markers of header segments: tables, restart interval, application data, comment.
_OTHER_SEGMENTS = {0xC4, 0xCC, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE}
MIN_ZEROS = 64  # at the end of a file that was allocated and not written, or whose download was interrupted
PREMATURE_END = "Premature end of JPEG file"  # as libjpeg words it
_STANDALONE = {0x00, 0x01, *range(0xD0, 0xD9)}
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


def decode(data: bytes, colorspace: str = "RGB", scale: int = 1) -> tuple[np.ndarray, str]:
    """Pixels uint8 (H, W, C) of the first image, and a note about faults that lose no pixels ("" without any). Raises
    ValueError with the reason if pixels are lost or the kind of JPEG is not supported.

    `scale`: from `scale_for`. The sides are 1/scale of the file's, rounded down, less one if they are no whole numbers.
    """
    try:
        return _strict(data, colorspace, scale), ""
    except ValueError as error:
        warning = str(error)
    if _lacks_scans(data):
        raise ValueError(PREMATURE_END)
    # Zero bytes are valid Huffman codes: after a scan that ends early they would become blocks of the image.
    stripped = data.rstrip(b"\0")
    if len(data) - len(stripped) >= MIN_ZEROS:
        data = stripped
    repaired = _repair(data)
    try:
        return _strict(repaired, colorspace, scale), f"JPEG repaired: {warning}"
    except ValueError as error:
        fault = str(error)
    if padding := re.search(r"(\d+) extraneous bytes before marker 0xd9", fault):
        # The scan is complete: these bytes follow its last block.
        return _strict(repaired[: -2 - int(padding[1])] + END, colorspace, scale), f"JPEG repaired: {fault}"
    raise ValueError(fault)


def reason(error: str, data: bytes) -> str:
    """Why a file is unreadable, from an error of `decode` or of its header."""
    if "remature end" in error or END not in data[-1024:]:
        return f"truncated: the JPEG data ends too early ({len(data):,} bytes)"
    return f"damaged: {error}"


def scale_for(data: bytes, height: int, width: int, min_side: int) -> int:
    """The largest of 8, 4, 2 and 1 by which both sides can be divided and are still at least `min_side` (0: 1).

    It is 1 for a lossless JPEG, on which libjpeg-turbo's scaling ends the process, and if odd header segments leave
    open whether the file is one.
    """
    side = min(height, width)
    if not min_side or side < 2 * min_side:
        return 1
    *markers, last = [marker for marker, _ in _header_segments(data)] or [0]
    if last != _SOS or not _DCT.intersection(markers) or not _DCT.union(_OTHER_SEGMENTS).issuperset(markers):
        return 1
    return next(scale for scale in (8, 4, 2) if side // scale >= min_side)


def has_exif(data: bytes) -> bool:
    """True if the file may have EXIF data: if it does, or if its header segments are not contiguous."""
    header = list(_header_segments(data))
    has_name = any(data[position + 4 : position + 8] == b"Exif" for _, position in header)
    return has_name or not header or header[-1][0] != _SOS


def _header_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker codes and positions of the contiguous segments from the start to the first scan's, which is the last one
    unless bytes that belong to no segment come before it."""
    position = 2
    while data[position : position + 1] == b"\xff" and position + 1 < len(data):
        yield data[position + 1], position
        if data[position + 1] == _SOS:
            return
        position += 2 + int.from_bytes(data[position + 2 : position + 4])


def segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker codes and bytes of the segments of the first image, with its end marker if there is one; a scan's
    segment includes its compressed data. Bytes between segments are left out."""
    position = 2
    while (start := data.find(b"\xff", position)) >= 0 and start + 1 < len(data):
        marker = data[start + 1]
        if marker == END[1]:
            yield marker, END
            return
        if marker == 0xFF or marker in _STANDALONE:
            position = start + (1 if marker == 0xFF else 2)
            continue
        stop = start + 2 + max(2, int.from_bytes(data[start + 2 : start + 4]))
        if marker == _SOS:
            scan_end = _SCAN_END.search(data, stop)
            stop = scan_end.start() if scan_end else len(data.rstrip(b"\xff"))
        yield marker, data[start:stop]
        position = stop


def _lacks_scans(data: bytes) -> bool:
    """True for a progressive file that ends before all coefficients are there, between two scans: with an end marker it
    would be a valid file of lower quality."""
    parts = list(segments(data))
    frame, header = next(((marker, segment) for marker, segment in parts if marker in _SOF), (0, b""))
    if frame not in _PROGRESSIVE or parts[-1][0] == END[1]:
        return False
    missing_bits = {(component, coefficient): 1 for component in header[10::3] for coefficient in range(64)}
    for marker, segment in parts:
        if marker == _SOS and len(segment) >= 8 + 2 * segment[4]:
            parameters = 5 + 2 * segment[4]
            first, last, bits = segment[parameters : parameters + 3]
            for component in segment[5:parameters:2]:
                missing_bits |= {(component, coefficient): bits & 15 for coefficient in range(first, last + 1)}
    return any(missing_bits.values())


def _strict(data: bytes, colorspace: str, scale: int) -> np.ndarray:
    """Raises ValueError at any warning."""
    height, width = simplejpeg.decode_jpeg_header(data, strict=False)[:2] if scale > 1 else (0, 0)
    pixels = simplejpeg.decode_jpeg(
        data,
        colorspace=colorspace,
        fastdct=False,
        fastupsample=False,
        min_height=-(-height // scale),
        min_width=-(-width // scale),
        strict=True,
    )
    return np.ascontiguousarray(pixels if scale == 1 else _without_overhang(pixels, height / scale, width / scale))


def _without_overhang(pixels: np.ndarray, height: float, width: float) -> np.ndarray:
    """The pixels of an image that covers `height` x `width` of them, where their last row and column extend beyond it:
    resized to whole pixels, so that nothing moves. One row or column less, because OpenCV does not resize an image to
    its own size, whatever the factors."""
    sides = [int(side) - (side % 1 > 0) for side in (height, width)]
    if sides == [height, width]:
        return pixels
    factor_y, factor_x = sides[0] / height, sides[1] / width
    resized = cv2.resize(pixels, None, fx=factor_x, fy=factor_y, interpolation=cv2.INTER_CUBIC)
    return resized[: sides[0], : sides[1]]


def _repair(data: bytes) -> bytes:
    parts = list(segments(data))
    frame = next((marker for marker, _ in parts if marker in _SOF), 0)
    components = next((segment[9] for marker, segment in parts if marker in _SOF and len(segment) > 9), 3)
    repaired = [START]
    for marker, segment in parts:
        if marker == _APP0 and segment[4:9] == b"JFIF\0":
            repaired.append(_JFIF)
        elif marker == _APP14 and segment[4:9] == b"Adobe" and len(segment) == 16:
            transform = segment[15] if segment[15] <= 2 else (2 if components == 4 else 1)
            repaired.append(segment[:15] + bytes([transform]))
        elif marker == _SOS and frame in _SEQUENTIAL:
            # A sequential scan has all 64 coefficients at full precision, regardless of its parameters.
            stop = 5 + 2 * segment[4] if len(segment) > 4 else len(segment)
            repaired.append(segment[:stop] + b"\x00\x3f\x00" + segment[stop + 3 :])
        elif marker != END[1] and not (_APP0 <= marker < _APP0 + 16 or marker == _COMMENT):
            repaired.append(segment)
    return b"".join(repaired) + END
