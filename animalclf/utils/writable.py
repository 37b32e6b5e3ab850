"""Whether a command can write its results."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from animalclf.utils.storage import filesystem, is_remote, join, remove, write_bytes


def check_writable(folder: str) -> None:
    """Raise UserError, which names `folder`, if no file can be written there: before long work, not after it. Leaves no
    folder behind that was not there: the work may be refused."""
    probe = join(folder, ".writable")
    missing = missing_folders(folder)
    write_bytes(probe, b"", shown=folder)
    remove(probe)
    remove_empty(missing)


def remove_empty(folders: Iterable[str]) -> None:
    """Remove local folders, from the inside, up to one that is not empty: another process writes there."""
    with contextlib.suppress(OSError):
        for path in folders:
            os.rmdir(path)


def missing_folders(folder: str) -> list[str]:
    """The local paths of `folder` and of those above it that do not exist, from the inside; of a remote one none."""
    missing: list[str] = []
    path = "" if is_remote(folder) else filesystem(folder)[1]
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing
