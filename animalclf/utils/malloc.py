"""Memory that stays with the process: glibc by default gives a large array's pages back when it is freed, and takes and zeroes new ones for the
next. A training step or an input task pays that again and again: up to a third of its time (python -m benchmarks.overhead, .input)."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # <malloc.h>
# Environment in which a process must start for `keep_freed_memory` to hold in all its threads, and Ray Train trains in one that is not the first:
# such threads have arenas of their own, from which glibc maps anything above 64 MB anew each time, whatever it is told.
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}


def keep_freed_memory() -> None:
    """Keep what this process frees for its own next allocations: in its first thread, with ONE_ARENA in all. Does nothing where the C library is
    not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        for setting, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 256 * 2**20)):
            mallopt(setting, value)
