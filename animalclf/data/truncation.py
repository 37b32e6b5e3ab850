"""Truncated image files that Pillow accepts. Plain Python."""

from __future__ import annotations

import struct
from collections.abc import Iterator

TIFF_PIXEL_TAGS = frozenset(
    (256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 347, 529, 530)
)
"""The tags that pixels depend on: size, bits, compression, strips, tiles, predictor, palette and the like."""
_TIFF_TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_PCX_PALETTE_BYTES = 769  # with its first byte, 12
_PIXEL_CHUNKS = (b"VP8 ", b"VP8L", b"ANMF")
_SOC_SIZ, _SOT, _SOD = b"\xff\x4f\xff\x51", 0xFF90, 0xFF93


def tiff_tags(data: bytes) -> dict[int, bool]:
    """The tags of the first directory of a TIFF file, and whether the file has all their values. Raises struct.error
    if the directory is cut."""
    order, big = "<" if data[:2] == b"II" else ">", 43 in data[2:4]
    offset = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)[0]
    count_format, entry_format = (f"{order}Q", f"{order}HHQQ") if big else (f"{order}H", f"{order}HHII")
    count = struct.unpack_from(count_format, data, offset)[0]
    offset += struct.calcsize(count_format)
    is_complete = {}
    for position in range(offset, offset + count * struct.calcsize(entry_format), struct.calcsize(entry_format)):
        tag, kind, values, start = struct.unpack_from(entry_format, data, position)
        size = values * _TIFF_TYPE_BYTES.get(kind, 1)
        is_complete[tag] = size <= (8 if big else 4) or start + size <= len(data)
    return is_complete


def zero_tail(data: bytes) -> int:
    """The number of zero bytes at the end of the compressed pixels of a WebP or AVIF file, 0 for other files."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        parts = [content for name, content in _riff_chunks(data) if name in _PIXEL_CHUNKS]
    else:
        parts = [content for name, content in _boxes(data) if name == b"mdat"] if data[4:11] == b"ftypavi" else []
    return max((len(part) - len(part.rstrip(b"\0")) for part in parts), default=0)


def max_zeros(pixels: int) -> int:
    """The number of zero bytes with which the data of a whole image may end. Measured: at most 15 at 300 x 225, 582 at
    3,000 x 2,000 pixels (WebP, of which two thirds are of one colour)."""
    return 64 + pixels // 1000


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        yield name, data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The top-level boxes of an ISO base media file (ISO/IEC 14496-12, section 4.2)."""
    position = 0
    while position + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, position)
        header = 8
        if size == 1 and position + 16 <= len(data):
            size, header = struct.unpack_from(">Q", data, position + 8)[0], 16
        stop = position + size if size >= header else len(data)
        yield name, data[position + header : stop]
        position = stop


def is_cut_pcx(data: bytes) -> bool:
    """True for a PCX file of 256 colours without the palette at its end."""
    version, bits, planes = data[1], data[3], data[65]
    return (version, bits, planes) == (5, 8, 1) and data[-_PCX_PALETTE_BYTES:][:1] != b"\x0c"


def is_cut_jpeg2000(data: bytes) -> bool:
    """True if a tile's data, whose length stands before them, end after the end of the file."""
    position, tiles = data.find(_SOC_SIZ) + 2, 0
    while position + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == _SOT and position + 10 <= len(data):
            length = struct.unpack_from(">I", data, position + 6)[0]
            if position + length > len(data):
                return True
            if length < 14:  # 0: until the end of the file
                return False
            position, tiles = position + length, tiles + 1
        elif marker >> 8 == 0xFF and marker not in (_SOD, 0xFFD9):
            position += 2 + length
        else:
            return False
    rest = data[position : position + 2]
    return not tiles if rest in (b"", b"\xff\xd9") else True
