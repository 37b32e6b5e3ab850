"""The chunks of PNG files. Plain Python."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from animalclf.data.formats import PNG

PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def without_metadata(data: bytes) -> bytes:
    """A file with only the chunks of its pixels and its EXIF data."""
    parts = [PNG]
    for kind, start, stop in _chunks(data):
        if kind in PIXEL_CHUNKS:
            parts.append(data[start:stop])
        elif kind == b"eXIf":  # also with a wrong checksum
            parts += [data[start : stop - 4], zlib.crc32(data[start + 4 : stop - 4]).to_bytes(4)]
    return b"".join(parts)


def is_cut(data: bytes) -> bool:
    """Whether a chunk is longer than the rest of the file."""
    return any(stop > len(data) for _, _, stop in _chunks(data))


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The type, start and end of each chunk; the last one may end after the file."""
    position = len(PNG)
    while position + 12 <= len(data):
        stop = position + 12 + int.from_bytes(data[position : position + 4])
        yield data[position + 4 : position + 8], position, stop
        position = stop
