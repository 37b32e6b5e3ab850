"""What runs in this process: a command, or a call of the Python API. A run records it, and startup times count from its
beginning."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Caller:
    """`text`: the command line, or the call as Python; `began`: in seconds since the epoch."""

    text: str
    began: float


_current: Caller | None = None  # not a context variable: threads of the call see it too


def caller() -> Caller:
    """The running command or call; outside of both, this process."""
    return _current or _process()


def is_known() -> bool:
    """Whether a command or a call runs."""
    return _current is not None


def _process() -> Caller:
    return Caller(" ".join(sys.argv), psutil.Process().create_time())


@contextmanager
def called(text: str = "") -> Iterator[None]:
    """Within this block the caller is `text`, a call that begins now, or (without `text`) this process's command; an
    outer block wins."""
    global _current
    outer = _current
    _current = outer or (Caller(text, time.time()) if text else _process())
    try:
        yield
    finally:
        _current = outer


def seconds_since_start() -> float:
    """Seconds since the running command (its process's start and imports included) or call began."""
    return time.time() - caller().began
