"""Memory that stays with the process: glibc by default gives a large array's pages back when it is freed, and takes and zeroes new ones for the
next. A training step or an input task pays that again and again: up to a fifth of its time (python -m benchmarks.step, .input)."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # <malloc.h>


def keep_freed_memory() -> None:
    """Keep what this process frees for its own next allocations. Does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        for setting, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 256 * 2**20)):
            mallopt(setting, value)
