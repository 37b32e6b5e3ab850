"""Freed memory stays with the process. By default glibc returns the pages of a large array to the kernel when it is
freed, and gets and zeroes new ones for the next: up to a third of the time of a training step or an input task
(python -m benchmarks.overhead, .input)."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # <malloc.h>


def keep_freed_memory() -> None:
    """Keep freed memory for later allocations: in the first thread, and with PROCESS_VARIABLES in all threads. Does
    nothing if the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        for setting, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 256 * 2**20)):
            mallopt(setting, value)
