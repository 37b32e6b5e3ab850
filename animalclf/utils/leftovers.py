"""Temporary files that killed processes have left."""

from __future__ import annotations

import fnmatch
import math
import os
import re
from contextlib import suppress
from pathlib import Path

import psutil

from animalclf.utils import storage

LOCK_FILE = "running.json"  # see folder_lock
TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.tmp$")  # of storage.atomic_write
START_SECONDS = 1.0  # psutil knows when a process started to this precision


def remove_leftovers(folder: str, name: str = "*.tmp", *, below: bool = False, writers_ended: bool = False) -> None:
    """Remove the temporary files in a local folder, with `below` also in the folders below it, that were written before
    this process started, or all (`writers_ended`: no other process writes there). Writes to a bucket leave none.

    A folder below that has a lock is left to its owner."""
    if storage.is_remote(folder):
        return
    started = math.inf if writers_ended else psutil.Process().create_time() + START_SECONDS
    root = storage.absolute(folder)
    for path, folders, files in os.walk(root):
        locked_by_another = path != root and LOCK_FILE in files
        if locked_by_another or not below:
            folders.clear()
        for file in () if locked_by_another else fnmatch.filter(files, name):
            temporary = Path(path, file)
            with suppress(OSError):  # another process may remove it
                if TEMPORARY.search(file) and temporary.stat().st_mtime < started:
                    temporary.unlink()
