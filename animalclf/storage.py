"""Files by URL: a local path and `s3://` alike, through fsspec. The only module that knows the difference."""

from __future__ import annotations

import json
import os
import posixpath
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from animalclf.errors import UserError

T = TypeVar("T")


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
        return fsspec.core.url_to_fs(absolute(url))
    except (ValueError, ImportError) as error:
        raise UserError(f"{url}: this kind of address is not supported ({error}); use a local path or s3://bucket/prefix") from error


def join(url: str, *parts: str) -> str:
    """`url/part/...` with forward slashes."""
    return posixpath.join(url.rstrip("/") if url != "/" else url, *parts)


def exists(url: str) -> bool:
    """True where there is a file or a folder."""
    fs, path = filesystem(url)
    fs.invalidate_cache()
    return bool(fs.exists(path))


def read_bytes(url: str) -> bytes:
    """The content of a file. Raises FileNotFoundError."""
    fs, path = filesystem(url)
    return bytes(fs.cat_file(path))


def write_bytes(url: str, content: bytes) -> None:
    """Write a file whole or not at all: a reader never sees half of it, also after a crash. Raises UserError where it cannot be written."""
    fs, path = filesystem(url)
    try:
        if isinstance(fs, LocalFileSystem):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
            try:
                with open(temporary, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:
                if os.path.exists(temporary):
                    os.remove(temporary)
        else:
            fs.pipe_file(path, content)
    except OSError as error:
        raise UserError(f"{url}: cannot be written ({error.strerror or error}); free space or choose another place") from error


def explained(url: str, action: Callable[[], T]) -> T:
    """`action()`, with what a bucket refuses turned into a UserError that says what to mend. FileNotFoundError of a file passes through."""
    if not is_remote(url):
        return action()
    import botocore.exceptions

    where = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile in ~/.aws, or a role on this machine"
    try:
        return action()
    except botocore.exceptions.NoCredentialsError as error:
        raise UserError(f"{url}: no AWS credentials found; {where}") from error
    except botocore.exceptions.EndpointConnectionError as error:
        raise UserError(f"{url}: the storage server cannot be reached ({error}); check AWS_ENDPOINT_URL and the network") from error
    except botocore.exceptions.ClientError as error:
        raise UserError(f"{url}: refused by the storage server: {error}") from error
    except PermissionError as error:
        raise UserError(f"{url}: access denied ({error}); check the credentials' policy for this bucket and prefix, or {where}") from error
    except FileNotFoundError as error:
        if "bucket" in str(error).lower():
            raise UserError(f"{url}: there is no such bucket; check its name and region") from error
        raise
    except OSError as error:
        raise UserError(f"{url}: {error}; check the bucket's region, AWS_ENDPOINT_URL, and that the credentials have not expired") from error


def read_json(url: str) -> Any:
    return json.loads(read_bytes(url))


def write_json(url: str, content: Any) -> None:
    """Write strict JSON (NaN and infinity raise ValueError) with an indent, whole or not at all."""
    write_bytes(url, (json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())


def remove(url: str) -> None:
    """Remove a file or a folder with all that is in it; nothing happens where there is none."""
    fs, path = filesystem(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)
