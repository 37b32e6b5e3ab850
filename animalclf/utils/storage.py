"""Files by URL: a local path and `s3://` alike, through fsspec. The only module that knows the difference."""

from __future__ import annotations

import io
import json
import os
import posixpath
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from animalclf.errors import UserError
from animalclf.utils import s3_errors

T = TypeVar("T")
LISTED_TOGETHER = 16  # folders of a bucket
# Bytes written to a local file at a time. For larger writes Linux takes memory in larger units to hold them until they are on the disk, which in a
# virtual machine took six times as long.
PIECE = 2**20


def is_remote(url: str) -> bool:
    """True for `s3://...` and any other URL with a scheme that is not `file`."""
    return "://" in url and not url.startswith("file://")


def absolute(url: str) -> str:
    """`url` with local paths made absolute (Ray workers change their directory) and no slash at the end."""
    if is_remote(url):
        return url.rstrip("/")
    return os.path.abspath(os.path.expanduser(url.removeprefix("file://")))


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of `url` and the path within it. Credentials and endpoint come from the usual places (AWS_* variables, ~/.aws)."""
    try:
        return fsspec.core.url_to_fs(absolute(url), **(s3_errors.options() if url.startswith("s3://") else {}))
    except (ValueError, ImportError) as error:
        raise UserError(
            f"{url}: this kind of address is not supported ({error}); use a local path or s3://bucket/prefix"
        ) from error


def join(url: str, *parts: str) -> str:
    """`url/part/...` with forward slashes."""
    return posixpath.join(url.rstrip("/") if url != "/" else url, *parts)


def exists(url: str) -> bool:
    """True where there is a file or a folder."""
    fs, path = filesystem(url)
    fs.invalidate_cache()
    return explained(url, lambda: bool(fs.exists(path)))


def read_bytes(url: str) -> bytes:
    """The content of a file. Raises FileNotFoundError."""
    fs, path = filesystem(url)
    return explained(url, lambda: bytes(fs.cat_file(path)))


def listing(url: str) -> list[tuple[str, int, str]]:
    """All files below a remote folder: path within it, bytes, and a stamp (the ETag on S3) that changes with the content; in no order.

    A bucket is listed a thousand names at a time, one answer after the other; folders are therefore listed side by side.
    """
    fs, root = filesystem(url)
    fs.invalidate_cache()
    found: dict[str, Any] = {}
    folders = [root]
    with ThreadPoolExecutor(LISTED_TOGETHER) as pool:
        for _ in range(3):  # down to where there are enough folders, as in train_images/<class>/
            levels = list(pool.map(lambda folder: _level(fs, url, folder), folders))
            entries = [entry for level in levels for entry in level if entry["name"].rstrip("/") not in folders]
            found |= {entry["name"]: entry for entry in entries if entry["type"] != "directory"}
            folders = [entry["name"] for entry in entries if entry["type"] == "directory"]
            if len(folders) >= LISTED_TOGETHER:
                break
        for below in pool.map(lambda folder: explained(url, lambda: fs.find(folder, detail=True)), folders):
            found |= below
    rows = [
        (name[len(root) + 1 :], facts)
        for name, facts in found.items()
        if facts["type"] != "directory" and not name.endswith("/")
    ]
    return [
        (
            path,
            int(facts.get("size") or 0),
            str(facts.get("ETag") or facts.get("LastModified") or facts.get("mtime") or ""),
        )
        for path, facts in rows
    ]


def _level(fs: fsspec.AbstractFileSystem, url: str, folder: str) -> list[dict[str, Any]]:
    try:
        return list(explained(url, lambda: fs.ls(folder, detail=True)))
    except FileNotFoundError:
        return []


class _InPieces(io.FileIO):
    """A file that takes at most PIECE bytes at a time, as a file may: io.BufferedWriter comes again with the rest."""

    def write(self, data: Any, /) -> int:
        return super().write(memoryview(data)[:PIECE])


@contextmanager
def writing(url: str, *, keep: bool = True) -> Iterator[BinaryIO]:
    """A file open for writing that becomes `url` when the block ends, whole or not at all: a reader never sees half of it, also after a crash of
    the machine (without `keep` only then when `keep_all` has it afterwards). Raises UserError where it cannot be written."""
    fs, path = filesystem(url)
    with _written(url):
        if isinstance(fs, LocalFileSystem):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
            try:
                with io.BufferedWriter(_InPieces(temporary, "wb")) as file:
                    yield file
                    file.flush()
                    if keep:
                        os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:
                if os.path.exists(temporary):
                    os.remove(temporary)
        else:
            sink = io.BytesIO()
            yield sink
            explained(url, lambda: fs.pipe_file(path, sink.getvalue()))


def keep_all(urls: Sequence[str]) -> None:
    """Wait until local files that were written a moment ago are on the disk (those that another node wrote to a shared folder: when that node closed
    them). Raises UserError where they do not get there."""
    for url in urls:
        if not is_remote(url):
            with _written(url), open(filesystem(url)[1], "rb") as file:
                os.fsync(file.fileno())


def write_bytes(url: str, content: bytes | memoryview) -> None:
    """Write a file as `writing` does."""
    if is_remote(url):
        fs, path = filesystem(url)
        with _written(url):
            explained(url, lambda: fs.pipe_file(path, bytes(content)))
        return
    with writing(url) as file:
        file.write(content)


@contextmanager
def _written(url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{url}: cannot be written ({error.strerror or error}); free space or choose another place"
        ) from error


def explained(url: str, action: Callable[[], T]) -> T:
    """`action()`; for a bucket with patience, and with what it refuses turned into a UserError. FileNotFoundError of a file passes through."""
    return s3_errors.persistent(url, action) if is_remote(url) else action()


def as_table(parquet: bytes) -> pd.DataFrame:
    """The table of a Parquet file's content. Raises ValueError or OSError for anything else.

    Without Arrow's threads: one that still lets go of Python's memory while the process ends aborts it ("terminate called without an active
    exception", github.com/apache/arrow/issues/34314; 4 of 120 short commands).
    """
    return pq.ParquetFile(pa.BufferReader(parquet)).read(use_threads=False).to_pandas(use_threads=False)


def write_table(url: str, table: pd.DataFrame) -> None:
    """Write a table, without its index, as Parquet."""
    with writing(url) as file:
        table.to_parquet(file, index=False)


def read_json(url: str) -> Any:
    return json.loads(read_bytes(url))


def write_json(url: str, content: Any) -> None:
    """Write strict JSON (NaN and infinity raise ValueError) with an indent, whole or not at all."""
    write_bytes(url, (json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())


def remove(url: str) -> None:
    """Remove a file or a folder with all that is in it; nothing happens where there is none."""
    if exists(url):
        fs, path = filesystem(url)
        explained(url, lambda: fs.rm(path, recursive=True))
