"""One task of `prepare`: read a chunk of files, verify each by decoding it, measure, hash and resize it, and write the
chunk as one shard. Plain Python."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from fsspec import AbstractFileSystem

from animalclf.data.decode import UnreadableImage, decode
from animalclf.data.resize import MIN_SIDE, decoded_side, stored_image
from animalclf.data.shards import write_shard
from animalclf.duplicates import find
from animalclf.errors import UserError
from animalclf.utils import s3_errors, storage
from animalclf.utils.file_names import real_path
from animalclf.utils.malloc import keep_freed_memory

# One read: as many files as requests run at the same time against S3, and at most this many bytes. Two reads are in
# memory at a time.
READ_FILES, READ_BYTES = 64, 64 * 2**20
RETRIES = 15  # about two minutes
MAX_FILE_BYTES = 2**30


@dataclass(frozen=True)
class Job:
    """Settings of all tasks. `size`: side of the stored images in pixels; `store`: see write_shard; `resize`: see
    data.resize.stored_image."""

    root: str
    out: str
    size: int
    max_pixels: int
    store: str = "pixels"
    resize: str = "squash"


@dataclass(frozen=True, eq=False)
class Measurement:
    """The measurements of one file. `status` is "ok" or why the file is unreadable; an unreadable file has width and
    height 0 and no `row`."""

    status: str
    note: str = ""
    width: int = 0
    height: int = 0
    bytes: int = 0
    sha256: str = ""
    signature: np.ndarray | None = None
    scale: int = 1
    """A large JPEG image was decoded at 1/scale of its sides."""
    row: int = -1
    """Row in the shard."""


def shard_name(chunk: int) -> str:
    return f"shard-{chunk:05d}.parquet"


def measure(chunk: pd.DataFrame, job: Job) -> dict[str, np.ndarray]:
    """Write the readable images of `chunk` (columns index, path, bytes, shard; `shard` is the same in all rows) as a
    shard. Returns the measurements.

    Columns: index, shard, row (both -1 for an unreadable file), width, height, scale, bytes, sha256, phash, status,
    note, signature uint8 (rows, 1600), and `error`, which is "". If the whole job must stop, the only column is
    `error`, with one row: the message (Ray would wrap a UserError).
    """
    cv2.setNumThreads(1)  # all cores run tasks
    keep_freed_memory()
    for folder in (job.root, job.out):
        if not storage.is_remote(folder) and not os.path.exists(folder):
            return _error(
                f"{folder}: not visible on node {socket.gethostname()}; use s3:// or a folder that all nodes share"
            )
    measurements: list[Measurement] = []

    def readable_images() -> Iterator[tuple[int, np.ndarray]]:
        rows = 0
        try:
            indices, paths = (chunk[name].to_list() for name in ("index", "path"))
            for index, path, content in zip(indices, paths, _contents(job.root, chunk), strict=True):
                measurement, image = _measure_file(path, content, job, rows)
                measurements.append(measurement)
                if image is not None:
                    rows += 1
                    yield index, image
        except OSError as error:  # write_shard would report it as an error of the shard
            raise UserError(f"{job.root}: cannot be read ({error})") from error

    try:  # without fsync: the driver syncs all shards at the end
        path = storage.join(job.out, shard_name(chunk["shard"].iloc[0]))
        write_shard(path, readable_images(), job.store, sync=False)
    except UserError as error:
        return _error(str(error))
    return _columns(chunk, measurements)


def _columns(chunk: pd.DataFrame, measurements: Sequence[Measurement]) -> dict[str, np.ndarray]:
    """The columns that `measure` returns."""
    no_signature = find.signature(np.zeros((1, 1, 3), np.uint8))
    signatures = np.stack([no_signature if file.signature is None else file.signature for file in measurements])
    row = np.array([file.row for file in measurements], np.int32)
    phash = np.full(len(row), "", object)
    phash[row >= 0] = find.phashes(signatures[row >= 0])
    return {
        "index": chunk["index"].to_numpy(np.int64),
        "bytes": np.array([file.bytes for file in measurements], np.int64),
        "shard": np.where(row >= 0, chunk["shard"], -1).astype(np.int32),
        "row": row,
        "width": np.array([file.width for file in measurements], np.int32),
        "height": np.array([file.height for file in measurements], np.int32),
        "scale": np.array([file.scale for file in measurements], np.int8),
        "sha256": np.array([file.sha256 for file in measurements], object),
        "phash": phash,
        "status": np.array([file.status for file in measurements], object),
        "note": np.array([file.note for file in measurements], object),
        "signature": signatures,
        "error": np.full(len(row), "", object),
    }


def read_image(root: str, max_pixels: int, path: str, min_side: int = MIN_SIDE) -> np.ndarray:
    """Image uint8 (H, W, 3) of the file `path` in `root`. `min_side`: see `decode`."""
    content = storage.read_bytes(storage.join(root, path))
    return decode(content, name=path, max_pixels=max_pixels, min_side=min_side).image


def _error(message: str) -> dict[str, np.ndarray]:
    return {"error": np.array([message], object)}


def _measure_file(path: str, content: bytes | str, job: Job, row: int) -> tuple[Measurement, np.ndarray | None]:
    """The measurements of one file, and its stored image uint8 (S, S, 3), which will be row `row` of the shard.
    `content` is text if the file could not be read: the reason."""
    if isinstance(content, str):
        return Measurement(content), None
    size, sha256 = len(content), hashlib.sha256(content).hexdigest()
    try:
        min_side = decoded_side(job.size, job.resize)
        decoded = decode(content, name=path, max_pixels=job.max_pixels, min_side=min_side)
        stored = stored_image(decoded.image, job.size, job.resize)
        # Of the same pixels for all stored sizes, so that their sets have the same near-duplicates and the same split.
        image = decoded.image
        if min(decoded.height, decoded.width) // (2 * decoded.scale) >= MIN_SIDE and decoded.format == "JPEG":
            image = decode(content, max_pixels=job.max_pixels, min_side=MIN_SIDE).image
    except UnreadableImage as error:
        return Measurement(str(error), bytes=size, sha256=sha256), None
    shape = (decoded.width, decoded.height)
    return Measurement("ok", decoded.note, *shape, size, sha256, find.signature(image), decoded.scale, row), stored


def _contents(root: str, chunk: pd.DataFrame) -> Iterator[bytes | str]:
    """The content of each file, or why it cannot be read. The next files are prefetched while the current ones are
    decoded."""
    paths, sizes = (chunk[name].to_list() for name in ("path", "bytes"))
    read_number = np.arange(len(paths)) // READ_FILES + np.cumsum(sizes, dtype=np.int64) // READ_BYTES
    edges = [0, *(np.flatnonzero(np.diff(read_number)) + 1), len(paths)]
    with ThreadPoolExecutor(1) as reader:
        prefetch = reader.submit(_read_listed, root, paths[: edges[1]], sizes[: edges[1]])
        for start, stop in zip(edges[1:], [*edges[2:], None], strict=True):
            contents = prefetch.result()
            if stop is not None:
                prefetch = reader.submit(_read_listed, root, paths[start:stop], sizes[start:stop])
            yield from contents


def _read_listed(root: str, paths: list[str], sizes: list[int]) -> list[bytes | str]:
    """As read_files, without a request for the files that are too large by their `sizes` in the listing."""
    listed = list(zip(paths, sizes, strict=True))
    contents = iter(read_files(root, [path for path, size in listed if size <= MAX_FILE_BYTES]))
    return [next(contents) if size <= MAX_FILE_BYTES else _too_large(size) for _, size in listed]


def _too_large(size: int) -> str:
    return f"too large: {size:,} bytes (limit {MAX_FILE_BYTES:,})"


def _advise(folder: str, paths: Sequence[str]) -> None:
    """Tell the operating system which local files are read next, so that the disk reads them in parallel."""
    for path in paths if hasattr(os, "posix_fadvise") else ():
        with suppress(OSError):  # read_files reports it
            file = os.open(
                real_path(storage.join(folder, path)), os.O_RDONLY | os.O_NONBLOCK
            )  # a named pipe must not block
            try:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(file)


def read_files(root: str, paths: Sequence[str]) -> list[bytes | str]:
    """The content of each file, or why it cannot be read. Network errors are retried. Raises UserError if they
    persist."""
    fs, base = storage.filesystem(root)
    if storage.is_remote(root):
        return _read_remote(fs, root, base, paths)
    _advise(base, paths)
    return [_read_local(storage.join(base, path)) for path in paths]


def _read_local(path: str) -> bytes | str:
    path = real_path(path)
    try:
        with open(path, "rb", buffering=0, opener=_open_nonblocking) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return "not a file, but a pipe, a socket or a device"
            if status.st_size > MAX_FILE_BYTES:
                return _too_large(status.st_size)
            return file.read()
    except FileNotFoundError:
        return "a link to a file that does not exist" if os.path.islink(path) else "file not found"
    except OSError as error:
        return f"cannot be read: {(error.strerror or str(error)).lower()}"


def _open_nonblocking(path: str, flags: int) -> int:
    """An opener that does not wait for the writer of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _read_remote(fs: AbstractFileSystem, root: str, base: str, paths: Sequence[str]) -> list[bytes | str]:
    contents: dict[str, bytes | str] = {}
    for attempt in range(RETRIES + 1):
        missing = [path for path in paths if path not in contents]
        # cat_ranges takes names literally; cat would read "[1]" as a pattern.
        results = fs.cat_ranges([storage.join(base, path) for path in missing], None, None, on_error="return")
        for path, result in zip(missing, results, strict=True):
            if isinstance(result, bytes):
                contents[path] = result
            elif isinstance(result, FileNotFoundError):
                contents[path] = "file not found"
            elif attempt == RETRIES or not s3_errors.is_transient(result):
                url = storage.join(root, path)
                raise UserError(
                    f"{url}: cannot be read after {attempt + 1} attempts ({type(result).__name__}: {result}); "
                    f"{s3_errors.error_message(result, url)}"
                )
        if len(contents) == len(set(paths)):
            break
        time.sleep(min(2**attempt, s3_errors.MAX_PAUSE))
    return [contents[path] for path in paths]
