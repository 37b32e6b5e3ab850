"""What a request may cost: bytes, images and seconds. Plain asyncio."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from animalclf.errors import UserError

UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9}
LARGEST_UPLOADS = 25  # that are in memory at a time


class Refused(Exception):
    """A request that is answered with an HTTP status from 400 on and a reason in one line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """Of one request, and (LARGEST_UPLOADS) of all requests together."""

    max_upload: int = 20_000_000
    """Bytes."""
    max_images: int = 64
    stall_seconds: float = 10.0
    """Without data."""
    upload_seconds: float = 60.0
    answer_seconds: float = 60.0
    """From the last byte of the upload to the probabilities."""


def parse_size(text: str) -> int:
    """Bytes of `20MB`, `500 KB` or `1GB` (powers of 1,000). Raises UserError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]B)", text.strip(), re.IGNORECASE)
    if not match or not (size := int(float(match[1]) * UNITS[match[2].upper()])):
        raise UserError(f"--max-upload {text}: write a size, as in --max-upload 20MB (or KB, GB)")
    return size


class UploadMemory:
    """Bounds the memory that the uploads of all requests take together."""

    def __init__(self, limits: Limits) -> None:
        self.free = limits.max_upload * LARGEST_UPLOADS

    @contextmanager
    def reserve(self) -> Iterator[Callable[[int], None]]:
        """A function that reserves bytes until the end of the block. It raises Refused if too many are in use."""
        held = 0

        def reserve(count: int) -> None:
            nonlocal held
            if count > self.free:
                raise Refused(503, "busy with other uploads; try again in a second")
            held, self.free = held + count, self.free - count

        try:
            yield reserve
        finally:
            self.free += held


async def limited(
    stream: AsyncIterator[bytes], length: str | None, limits: Limits, reserve: Callable[[int], None]
) -> AsyncIterator[bytes]:
    """The chunks of an upload; `length` is its Content-Length, if it has one. Raises Refused, before anything is read
    if the length says so already, for an upload that is too large or too slow."""
    reason = f"the upload is larger than {limits.max_upload / 1e6:g} MB (--max-upload)"
    if length and int(length) > limits.max_upload:
        raise Refused(413, reason)
    received, until = 0, asyncio.get_running_loop().time() + limits.upload_seconds
    while True:
        seconds = min(limits.stall_seconds, until - asyncio.get_running_loop().time())
        try:
            chunk = await asyncio.wait_for(anext(stream, b""), seconds)
        except TimeoutError:
            raise Refused(408, f"the upload stopped or takes longer than {limits.upload_seconds:g} s") from None
        if not chunk:
            return
        received += len(chunk)
        if received > limits.max_upload:
            raise Refused(413, reason)
        reserve(len(chunk))
        yield chunk
