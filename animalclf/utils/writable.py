"""Whether a command can write its results."""

from __future__ import annotations

import contextlib
import os

from animalclf.utils.storage import filesystem, is_remote, join, remove, write_bytes


def check_writable(folder: str) -> None:
    """Raise UserError if no file can be written to `folder`: before long work, not after it. Leaves no folder behind
    that was not there: the work may be refused."""
    probe = join(folder, ".writable")
    missing = [] if is_remote(folder) else _missing_folders(filesystem(folder)[1])
    write_bytes(probe, b"")
    remove(probe)
    with contextlib.suppress(OSError):  # another process writes there
        for path in missing:
            os.rmdir(path)


def _missing_folders(path: str) -> list[str]:
    """The local folder `path` and those above it that do not exist, from the inside."""
    missing = []
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing
