"""Temporary files that killed processes have left."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from pathlib import Path

import psutil

from animalclf.utils import storage

TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.tmp$")  # of storage.atomic_write
START_SECONDS = 1.0  # psutil knows when a process started to this precision


def remove_leftovers(folder: str, pattern: str = "**/*.tmp", *, writers_ended: bool = False) -> None:
    """Remove the temporary files in a local folder that were written before this process started, or all
    (`writers_ended`: no other process writes there). Writes to a bucket leave none."""
    if storage.is_remote(folder):
        return
    started = math.inf if writers_ended else psutil.Process().create_time() + START_SECONDS
    for path in Path(storage.absolute(folder)).glob(pattern):
        with suppress(OSError):  # another process may remove it
            if TEMPORARY.search(path.name) and path.stat().st_mtime < started:
                path.unlink()
