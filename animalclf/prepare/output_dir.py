"""The folder or prefix of a prepared set while it is made: what may stand there, room for it, and no half of a set after a failure."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch

from animalclf.data.prepared_set import INFO, MANIFEST
from animalclf.errors import UserError
from animalclf.utils import storage

SHEET = "copies.png"  # the contact sheet of near-duplicates
SHARDS, TEMPORARY = "shard-*.parquet", "*.tmp"
WRITTEN = (INFO, MANIFEST, SHEET, SHARDS, TEMPORARY)
"""What `prepare` writes, in the order of removal: without INFO a set is not finished."""


def file_names(out: str) -> list[str]:
    """The files and folders in `out`; none where it does not exist."""
    fs, path = storage.filesystem(out)
    fs.invalidate_cache()
    try:
        listed = storage.explained(out, lambda: fs.ls(path, detail=False))
        return [os.path.basename(name.rstrip("/")) for name in listed if name.rstrip("/") != path]
    except (FileNotFoundError, NotADirectoryError):
        return []


def clear(out: str, patterns: Sequence[str] = WRITTEN) -> None:
    """Remove what `prepare` writes, and nothing else."""
    names = file_names(out)
    for pattern in patterns:
        for name in names:
            if fnmatch(name, pattern):
                storage.remove(storage.join(out, name))


def make_room(out: str, size: int) -> None:
    """Make sure that `out` can take `size` bytes, and remove what an interrupted or replaced preparation left there.

    Raises UserError for other files in `out`, and where it cannot be written or lacks space."""
    foreign = [
        name
        for name in file_names(out)
        if not name.startswith(".") and not any(fnmatch(name, pattern) for pattern in WRITTEN)
    ]
    if foreign:
        raise UserError(
            f"{out}: holds other files ({', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}); choose an empty or a new folder"
        )
    probe = storage.join(out, "probe.tmp")
    storage.write_bytes(probe, b"")
    storage.remove(probe)
    clear(out)
    free = size if storage.is_remote(out) else shutil.disk_usage(out).free
    if size > free:
        raise UserError(
            f"{out}: the prepared pictures need {size / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "free space, choose another place, or store them smaller with --set data.stored_size=..."
        )


@contextmanager
def cleared_on_failure(out: str) -> Iterator[None]:
    """Remove what was written if the work within fails or is interrupted."""
    try:
        yield
    except BaseException:
        clear(out)
        raise
