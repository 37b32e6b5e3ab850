"""The output folder or prefix of `prepare`: its checks before the work, and its cleanup after a failure."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch

from animalclf.data.prepared_set import INFO, MANIFEST
from animalclf.errors import UserError
from animalclf.folder_lock import FILE as LOCK
from animalclf.folder_lock import FolderLock, InUseError, LostLockError
from animalclf.folder_lock import locked as locked_folder
from animalclf.utils import storage
from animalclf.utils.console import show_line
from animalclf.utils.text import size_text

SHEET = "near_duplicates.png"
OLD_SHEET = "copies.png"
SHARDS, FEATURES, TEMPORARY = "shard-*.parquet", "features-*.npz", "*.tmp"
WRITTEN = (INFO, MANIFEST, SHEET, OLD_SHEET, SHARDS, FEATURES, TEMPORARY)
"""The files that `prepare` and trainings (FEATURES) write, in the order of their removal. INFO is first: without it a
set is incomplete."""
WAIT_SECONDS = 0.5  # between two looks whether another process still prepares


def file_names(out: str) -> list[str]:
    """The files and folders in `out`; none if it does not exist."""
    fs, path = storage.filesystem(out)
    fs.invalidate_cache()
    try:
        names = storage.with_retries(out, lambda: fs.ls(path, detail=False))
        return [os.path.basename(name.rstrip("/")) for name in names if name.rstrip("/") != path]
    except (FileNotFoundError, NotADirectoryError):
        return []


def clear(out: str, patterns: Sequence[str] = WRITTEN) -> None:
    """Remove the files in `out` that match `patterns`: by default all that `prepare` writes."""
    names = file_names(out)
    for pattern in patterns:
        for name in names:
            if fnmatch(name, pattern):
                storage.remove(storage.join(out, name))


def check_own(out: str) -> None:
    """Raise UserError if `out` holds other files than those of a prepared set."""
    foreign = [
        name
        for name in file_names(out)
        if not name.startswith(".") and not any(fnmatch(name, pattern) for pattern in (*WRITTEN, LOCK))
    ]
    if foreign:
        examples = f"{', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}"
        raise UserError(f"{out}: holds other files ({examples}); choose an empty or a new folder")


@contextmanager
def locked(out: str) -> Iterator[tuple[FolderLock, bool]]:
    """Within the block no other process prepares in `out`; before it, one that does so is waited for. The block's value
    is the lock, and whether there was one. Raises UserError if `out` cannot be written; a folder that stays empty is
    removed."""
    waited = False
    with ExitStack() as stack:
        while True:
            try:
                lock = stack.enter_context(locked_folder(out))
                break
            except InUseError as error:
                if not waited:
                    holder = error.holder
                    show_line(f"{out}: process {holder.pid} on {holder.host} writes there; waiting for it")
                waited = True
                time.sleep(WAIT_SECONDS)
        yield lock, waited


def reserve(out: str, size: int) -> None:
    """Check that `out` has space for `size` bytes, and remove what an earlier preparation left there. Raises
    UserError."""
    clear(out)
    free = size if storage.is_remote(out) else shutil.disk_usage(out).free
    if size > free:
        raise UserError(
            f"{out}: the prepared images need {size_text(size)}, and {size_text(free)} are free; "
            "free space, choose another folder, or store smaller images with --set data.stored_size=..."
        )


@contextmanager
def cleared_on_failure(out: str, lock: FolderLock) -> Iterator[None]:
    """Remove what `prepare` has written to `out` if the block raises. Raises LostLockError if the folder, whose `lock`
    this process has, is another process's by now: then it is left as it is."""
    try:
        yield
    except LostLockError:
        raise
    except BaseException as error:
        try:
            lock.renew()
        except LostLockError as lost:
            raise lost from error
        except UserError:  # the folder cannot be written: there is nothing to remove
            pass
        else:
            clear(out)
        raise
