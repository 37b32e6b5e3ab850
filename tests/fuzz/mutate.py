"""Damaged variants of a file, drawn from a random generator. Plain Python."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence

_PNG = b"\x89PNG\r\n\x1a\n"
EXTREMES = (0, 1, 2, 7, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def cut(data: bytes, rng: random.Random, _: Sequence[bytes] = ()) -> bytes:
    """The start of the file."""
    return data[: rng.randrange(len(data))]


def flip(data: bytes, rng: random.Random, _: Sequence[bytes] = ()) -> bytes:
    """One to eight bits flipped, half of the time in the first 64 bytes."""
    changed = bytearray(data)
    end = min(64, len(data)) if rng.random() < 0.5 else len(data)
    for _bit in range(rng.randint(1, 8)):
        changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(data: bytes, rng: random.Random, _: Sequence[bytes] = ()) -> bytes:
    """A run of random bytes, or of one byte."""
    start, count = rng.randrange(len(data)), rng.randint(1, 32)
    run = rng.randbytes(count) if rng.random() < 0.5 else bytes([rng.randrange(256)]) * count
    return data[:start] + run + data[start + count :]


def delete(data: bytes, rng: random.Random, _: Sequence[bytes] = ()) -> bytes:
    """Without some bytes in the middle."""
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 64) :]


def repeat(data: bytes, rng: random.Random, _: Sequence[bytes] = ()) -> bytes:
    """With a part twice."""
    start, stop = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    return data[:stop] + data[start:]


def splice(data: bytes, rng: random.Random, corpus: Sequence[bytes] = ()) -> bytes:
    """The start of this file and the end of another."""
    other = rng.choice(corpus) if corpus else data
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def length_field(data: bytes, rng: random.Random, _: Sequence[bytes] = ()) -> bytes:
    """An extreme number of one, two or four bytes, mostly near the start, where headers are."""
    size, order = rng.choice((1, 2, 4)), rng.choice(("big", "little"))
    end = len(data) if rng.random() < 0.3 else min(128, len(data))
    start = rng.randrange(max(1, end - size))
    number = rng.choice(EXTREMES) & (256**size - 1)
    return data[:start] + number.to_bytes(size, order) + data[start + size :]


Mutation = Callable[[bytes, random.Random, Sequence[bytes]], bytes]
MUTATIONS: tuple[Mutation, ...] = (cut, flip, overwrite, delete, repeat, splice, length_field)


def mutated(data: bytes, rng: random.Random, corpus: Sequence[bytes] = ()) -> tuple[bytes, str]:
    """A damaged variant, and the names of the mutations: one, or up to four of them one after the other. The checksums
    of a PNG file are corrected half of the time, so that the damage reaches the decoder."""
    names = []
    for _ in range(1 if rng.random() < 0.7 else rng.randint(2, 4)):
        if not data:
            break
        mutation = rng.choice(MUTATIONS)
        data = mutation(data, rng, corpus)
        names.append(mutation.__name__)
    if data.startswith(_PNG) and rng.random() < 0.5:
        data = _with_png_checksums(data)
        names.append("checksums")
    return data, "+".join(names)


def _with_png_checksums(data: bytes) -> bytes:
    parts, position = [_PNG], len(_PNG)
    while position + 12 <= len(data):
        stop = position + 8 + int.from_bytes(data[position : position + 4], "big")
        if stop > len(data):
            break
        parts += [data[position:stop], zlib.crc32(data[position + 4 : stop]).to_bytes(4, "big")]
        position = stop + 4
    return b"".join(parts) + data[position:]
