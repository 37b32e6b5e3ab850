"""One chunk of files: read, verified by decoding, measured, hashed, resized and written as a shard. Plain Python, what a task of `prepare` does."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd

from animalclf.data.decode import UnreadableImage, decode, resize
from animalclf.data.prepared_set import write_shard
from animalclf.duplicates import find
from animalclf.errors import UserError
from animalclf.utils import s3_errors, storage
from animalclf.utils.malloc import keep_freed_memory

READ_FILES, READ_BYTES = (
    64,
    64 * 2**20,
)  # read together: this many requests are on their way to S3, and about so much is in memory twice
RETRIES = 15  # about two minutes


@dataclass(frozen=True)
class Job:
    """The same for every chunk: data root, prepared set, side of the stored pictures, limit on pixels, and how they are stored."""

    root: str
    out: str
    size: int
    max_pixels: int
    store: str = "pixels"


def shard_name(chunk: int) -> str:
    return f"shard-{chunk:05d}.parquet"


def measure(chunk: pd.DataFrame, job: Job) -> dict[str, np.ndarray]:
    """Write the readable pictures of `chunk` (columns index, path, bytes, shard; one number in shard) as a shard, and return what was found.

    Columns: index, shard, row (-1, -1 for what is set aside), width, height, bytes, sha256, phash, status, note, signature uint8 (rows, K), and
    `failed`: "", or in a single row of no other column why the whole job must stop (a UserError's text, which would come wrapped out of a task).
    """
    cv2.setNumThreads(1)  # the tasks are the parallelism
    keep_freed_memory()
    for folder in (job.root, job.out):
        if not storage.is_remote(folder) and not os.path.exists(folder):
            return _failed(
                f"{folder}: not visible on node {socket.gethostname()}; use s3:// or a folder that all nodes share"
            )
    rows: list[dict[str, Any]] = []
    no_signature = find.signature(np.zeros((1, 1, 3), np.uint8))  # of what is set aside

    def readable() -> Iterator[tuple[int, np.ndarray]]:
        count = 0
        try:
            for index, path, data in zip(chunk["index"], chunk["path"], _contents(job.root, chunk), strict=True):
                row, image = _one(path, data, job)
                rows.append({"row": -1, "signature": no_signature, **row})
                if image is not None:
                    rows[-1]["row"], count = count, count + 1
                    yield index, image
        except OSError as error:  # or it would be taken for one of the shard's
            raise UserError(f"{job.root}: cannot be read ({error})") from error

    try:  # whether all of it is on the disk, `prepare` sees to at the end
        write_shard(storage.join(job.out, shard_name(chunk["shard"].iloc[0])), readable(), job.store, keep=False)
    except UserError as error:
        return _failed(str(error))
    table = pd.DataFrame(rows)
    good = (table["row"] >= 0).to_numpy()
    signatures = np.stack(table["signature"].to_list())
    table.loc[good, "phash"] = find.phashes(signatures[good])
    return {
        "index": chunk["index"].to_numpy(np.int64),
        "bytes": table["bytes"].to_numpy(np.int64),
        "shard": np.where(good, chunk["shard"], -1).astype(np.int32),
        **{name: table[name].to_numpy(np.int32) for name in ("row", "width", "height")},
        **{name: table[name].to_numpy(object) for name in ("sha256", "phash", "status", "note")},
        "signature": signatures,
        "failed": np.full(len(table), "", object),
    }


def image_of(root: str, max_pixels: int, path: str) -> np.ndarray:
    """One image uint8 (H, W, 3) of the data root."""
    return decode(storage.read_bytes(storage.join(root, path)), name=path, max_pixels=max_pixels).image


def _failed(message: str) -> dict[str, np.ndarray]:
    return {"failed": np.array([message], object)}


def _one(path: str, data: bytes | str, job: Job) -> tuple[dict[str, Any], np.ndarray | None]:
    """What the manifest says of one file, and its stored picture uint8 (S, S, 3). `data` is a text where it could not be read: the reason."""
    row: dict[str, Any] = {"width": 0, "height": 0, "bytes": 0, "sha256": "", "phash": "", "status": data, "note": ""}
    if isinstance(data, str):
        return row, None
    row |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    try:
        found = decode(data, name=path, max_pixels=job.max_pixels)
    except UnreadableImage as error:
        return row | {"status": str(error)}, None
    height, width = found.image.shape[:2]
    stored = resize(found.image, job.size)
    signature = find.signature(
        stored if job.size >= 2 * find.SIDE else found.image
    )  # of the small picture it takes a third of the time
    row |= {"width": width, "height": height, "signature": signature, "status": "ok", "note": found.note}
    return row, stored


def _contents(root: str, chunk: pd.DataFrame) -> Iterator[bytes | str]:
    """The content of every file, or why it cannot be read. The next files are on their way while these are decoded."""
    paths = chunk["path"].to_list()
    full = np.arange(len(paths)) // READ_FILES + np.cumsum(chunk["bytes"].to_numpy(np.int64)) // READ_BYTES
    edges = [0, *(np.flatnonzero(np.diff(full)) + 1), len(paths)]
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read_files, root, paths[: edges[1]])
        for start, stop in zip(edges[1:], [*edges[2:], None], strict=True):
            contents = ahead.result()
            if stop is not None:
                ahead = reader.submit(read_files, root, paths[start:stop])
            yield from contents


def _announce(folder: str, paths: Sequence[str]) -> None:
    """Tell the system which local files are read next, so that the disk has all of them to do and not one at a time."""
    for path in paths if hasattr(os, "posix_fadvise") else ():
        with suppress(OSError):  # reading says what is wrong with it
            file = os.open(
                storage.join(folder, path), os.O_RDONLY | os.O_NONBLOCK
            )  # does not wait for a pipe's other end
            try:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(file)


def read_files(root: str, paths: Sequence[str]) -> list[bytes | str]:
    """Read files together. A file that is gone or closed is a bad file; a network that fails is tried again, and in the end a UserError."""
    fs, base = storage.filesystem(root)
    if not storage.is_remote(root):
        _announce(base, paths)
    contents: dict[str, bytes | str] = {}
    for attempt in range(RETRIES + 1):
        left = [path for path in paths if path not in contents]
        # cat_ranges takes names as they are, where cat would read "[1]" as a pattern
        for path, content in zip(
            left, fs.cat_ranges([storage.join(base, path) for path in left], None, None, on_error="return"), strict=True
        ):
            if isinstance(content, bytes):
                contents[path] = content
            elif isinstance(content, FileNotFoundError):
                contents[path] = "not there any more"
            elif isinstance(content, OSError) and not storage.is_remote(root):
                contents[path] = f"cannot be read: {(content.strerror or str(content)).lower()}"
            elif attempt == RETRIES or not s3_errors.passing(content):
                url = storage.join(root, path)
                what = f"{url}: cannot be read after {attempt + 1} attempts ({type(content).__name__}: {content})"
                raise UserError(f"{what}; {s3_errors.explanation(content, url)}")
        if len(contents) == len(set(paths)):
            break
        time.sleep(min(2**attempt, s3_errors.LONGEST_PAUSE))
    return [contents[path] for path in paths]
