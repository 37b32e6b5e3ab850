"""Truncated image files that Pillow accepts. Plain Python."""

from __future__ import annotations

import struct

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
