"""Files by URL, through fsspec: local paths and `s3://` alike. No other module distinguishes them."""

from __future__ import annotations

import errno
import io
import json
import os
import posixpath
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO, TypeVar

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from animalclf.errors import UserError
from animalclf.utils import s3_errors
from animalclf.utils.file_names import check_utf8, real_path
from animalclf.utils.redact import has_credentials, redact
from animalclf.utils.text import reason

T = TypeVar("T")
MAX_HEADS = 1000  # files whose first bytes are requested at a time
SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "http", "https", "memory")  # fsspec has others, which run code of files
RESTORE = "restore the file, or run the command that writes it again"  # the remedy for a damaged file
NOT_PERMITTED = (errno.EACCES, errno.EPERM, errno.EROFS)
MAX_WRITE = 2**20  # bytes; larger ones use larger units of Linux's page cache: six times slower in a virtual machine


def is_remote(url: str) -> bool:
    """True for `s3://...` and any other URL with a scheme that is not `file`."""
    return "://" in url and not url.startswith("file://")


def absolute(url: str) -> str:
    """`url` without a slash at the end; a local path becomes absolute, because Ray workers change their directory.
    Raises UserError for a path that is not UTF-8."""
    check_utf8(url)
    if is_remote(url):
        return url.rstrip("/")
    return os.path.abspath(os.path.expanduser(url.removeprefix("file://")))


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of `url` and the path within it. Credentials and endpoint: AWS_* variables, ~/.aws."""
    path = absolute(url)
    if not is_remote(url):
        return LocalFileSystem(), real_path(path)
    if has_credentials(url):
        raise UserError(
            f"{redact(url)}: has a password, a token or a signature, which run folders and logs would show; download "
            "the file and name its path, or give credentials as AWS_* variables or in ~/.aws"
        )
    try:
        if not url.startswith("s3://"):
            if path.partition("://")[0] not in SCHEMES or "::" in path:
                raise ValueError("unknown scheme")
            return fsspec.core.url_to_fs(path)
        fs = fsspec.filesystem("s3", **s3_errors.options())
        return fs, fs._strip_protocol(path)  # url_to_fs would read "::" in a key as a chain of addresses
    except (ValueError, ImportError) as error:
        raise UserError(
            f"{url}: this kind of address is not supported ({error}); use a local path or s3://bucket/prefix"
        ) from error


def join(url: str, *parts: str) -> str:
    """`url/part/...` with forward slashes."""
    return posixpath.join(url.rstrip("/") if url != "/" else url, *parts)


def exists(url: str) -> bool:
    """True if there is a file or a folder."""
    fs, path = filesystem(url)
    fs.invalidate_cache()
    return with_retries(url, lambda: bool(fs.exists(path)))


def is_file(url: str) -> bool:
    """True if there is a file, not a folder."""
    fs, path = filesystem(url)
    return with_retries(url, lambda: bool(fs.isfile(path)))


def size(url: str) -> int:
    """The bytes of a file. Raises FileNotFoundError."""
    fs, path = filesystem(url)
    return with_retries(url, lambda: int(fs.info(path)["size"]))


def read_bytes(url: str) -> bytes:
    """The content of a file. Raises FileNotFoundError."""
    fs, path = filesystem(url)
    return with_retries(url, lambda: bytes(fs.cat_file(path)))


def read_heads(url: str, paths: Sequence[str], size: int) -> list[bytes | None]:
    """The first `size` bytes of each of the files `paths` below `url`, None for a file that cannot be read."""
    fs, root = filesystem(url)
    heads: list[bytes | None] = []
    for start in range(0, len(paths), MAX_HEADS):
        chunk = [join(root, path) for path in paths[start : start + MAX_HEADS]]
        if is_remote(url):
            heads += with_retries(url, partial(fs.cat_ranges, chunk, 0, size, on_error="raise"))
        else:
            heads += [_local_head(path, size) for path in chunk]
    return heads


def _local_head(path: str, size: int) -> bytes | None:
    path = real_path(path)
    if not os.path.isfile(path):  # a pipe would never end
        return None
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError:
        return None


class _ChunkedFile(io.FileIO):
    """A file that writes at most MAX_WRITE bytes per call; io.BufferedWriter writes the rest in further calls."""

    def write(self, data: Any, /) -> int:
        return super().write(memoryview(data)[:MAX_WRITE])


@contextmanager
def atomic_write(url: str, *, sync: bool = True, shown: str = "") -> Iterator[BinaryIO]:
    """A file open for writing that becomes `url`, whole, when the block ends without an error: a reader never sees a
    part of it, also after a crash of the machine (without `sync`: only after `sync_files`). Raises UserError if it
    cannot be written, which names `shown` in place of `url`."""
    fs, path = filesystem(url)
    with _write_errors(url, shown):
        if isinstance(fs, LocalFileSystem):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
            try:
                with io.BufferedWriter(_ChunkedFile(temporary, "wb")) as file:
                    yield file
                    file.flush()
                    if sync:
                        os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:
                if os.path.exists(temporary):
                    os.remove(temporary)
        else:
            sink = io.BytesIO()
            yield sink
            _put(url, sink.getvalue(), shown)


def sync_files(urls: Sequence[str]) -> None:
    """Flush local files to the disk (a shared folder's: once the node that wrote them has closed them). Raises
    UserError if that fails."""
    for url in urls:
        if not is_remote(url):
            with _write_errors(url), open(filesystem(url)[1], "rb") as file:
                os.fsync(file.fileno())


def write_bytes(url: str, content: bytes | memoryview, *, shown: str = "") -> None:
    """Write a file whole or not at all, as `atomic_write`."""
    if is_remote(url):
        with _write_errors(url, shown):
            _put(url, bytes(content), shown)
        return
    with atomic_write(url, shown=shown) as file:
        file.write(content)


def _put(url: str, content: bytes, shown: str = "") -> None:
    """Write a remote file."""
    fs, path = filesystem(url)
    with_retries(shown or url, lambda: fs.pipe_file(path, content, timeout=s3_errors.write_seconds(len(content))))


@contextmanager
def _write_errors(url: str, shown: str = "") -> Iterator[None]:
    """OSError becomes UserError that names `shown`, by default `url`, or the file that is in its way."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        folder = posixpath.dirname(url)
        while not is_remote(url) and folder and not os.path.lexists(folder):
            folder = posixpath.dirname(folder)
        raise UserError(f"{folder}: cannot be written, a file is there; change --out") from error
    except OSError as error:
        remedy = "" if error.errno in NOT_PERMITTED else "free space or "
        raise UserError(
            f"{shown or url}: cannot be written ({error.strerror or error}); {remedy}choose another location (--out)"
        ) from error


def with_retries(url: str, action: Callable[[], T]) -> T:
    """`action()`; for a bucket with retries, and with its errors as UserError. FileNotFoundError passes through."""
    return s3_errors.with_retries(url, action) if is_remote(url) else action()


def parse_parquet(content: bytes) -> pd.DataFrame:
    """The table of a Parquet file. Raises ValueError with a reason in one line for other content, even if a page
    differs from its checksum.

    Arrow's threads are off: one that frees Python's memory while the process exits aborts it ("terminate called
    without an active exception", github.com/apache/arrow/issues/34314; 4 of 120 short commands).
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        check_plain_types(file.schema_arrow)
        table = file.read(use_threads=False)
        table.validate(full=True)
        return table.to_pandas(use_threads=False)
    except Exception as error:  # Arrow raises errors of many types for damaged files
        raise ValueError(reason(error)) from error


def check_plain_types(schema: pa.Schema) -> None:
    """Raise ValueError for a column whose type a library has registered with Arrow: Ray Data's type of Python objects
    unpickles its values, which can run any code."""
    for column in schema:
        if _is_registered(column.type):
            raise ValueError(f"column {column.name!r} has a type of a library ({column.type}), which may hold code")


def _is_registered(kind: pa.DataType) -> bool:
    """Whether a type, or one nested in it, is registered."""
    if isinstance(kind, pa.ExtensionType):
        return True
    children = [kind.field(number).type for number in range(kind.num_fields)]
    return any(map(_is_registered, children + ([kind.value_type] if pa.types.is_dictionary(kind) else [])))


def read_table(url: str, columns: Collection[str] = ()) -> pd.DataFrame:
    """The table of a Parquet file that `write_table` wrote. Raises FileNotFoundError, and UserError for other content
    or without one of the `columns`."""
    try:
        table = parse_parquet(read_own(url))
    except ValueError as error:
        raise UserError(f"{url}: not a readable table ({error}); {RESTORE}") from error
    if missing := [name for name in columns if name not in table.columns]:
        raise UserError(f"{url}: has no column {', '.join(map(repr, missing))}; {RESTORE}")
    return table


def write_table(url: str, table: pd.DataFrame) -> None:
    """Write a table, without its index, as Parquet with checksums."""
    with atomic_write(url) as file:
        table.to_parquet(file, index=False, write_page_checksum=True)


def read_json(url: str) -> Any:
    """The value of a JSON file. Raises FileNotFoundError and NotADirectoryError, and UserError if the file cannot be
    read or has other content."""
    return parse_json(read_own(url), url)


def read_own(url: str) -> bytes:
    """The content of a file that this package wrote. Raises FileNotFoundError and NotADirectoryError, and UserError if
    the file cannot be read."""
    try:
        return read_bytes(url)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise UserError(
            f"{url}: cannot be read ({error.strerror or error}); check its permissions, or restore the file"
        ) from error


def parse_json(content: bytes, source: str) -> Any:
    """The value of JSON text. Raises UserError naming `source` for other content."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not valid JSON ({reason(error)}); {RESTORE}") from error


def write_json(url: str, content: object, *, shown: str = "") -> None:
    """Write strict, indented JSON, as `atomic_write`. Raises ValueError for NaN and infinity."""
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_bytes(url, text.encode(), shown=shown)


def remove(url: str) -> None:
    """Remove a file or a folder and its content, if it exists; also one that another process is removing."""
    fs, path = filesystem(url)
    while not is_remote(url) and os.path.exists(path):
        with suppress(FileNotFoundError):
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    for name in with_retries(url, lambda: fs.find(path)) if is_remote(url) and exists(url) else ():
        with_retries(url, partial(fs.rm_file, name))  # fs.rm would read [, * and ? as a pattern
