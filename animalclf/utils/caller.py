"""The caller: the command of this process, or a call of the Python API. A run records it, and startup times count from
its start."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import psutil

from animalclf.utils.redact import redact_arguments, redact_command


@dataclass(frozen=True)
class Caller:
    text: str
    """The command line, or the call as Python, without secrets."""
    started: float
    """Seconds since 1970."""


_of_thread: ContextVar[Caller | None] = ContextVar("caller", default=None)
_running: list[Caller] = []  # of all threads; the first is that of threads which a call has started


def caller() -> Caller:
    """The running command or call; outside of both, this process."""
    return _of_thread.get() or (_running[0] if _running else _process())


def is_known() -> bool:
    """Whether a command or a call runs in this thread."""
    return _of_thread.get() is not None


def _process() -> Caller:
    return Caller(redact_command(" ".join(redact_arguments(_typed(sys.argv)))), psutil.Process().create_time())


def _typed(argv: list[str]) -> list[str]:
    """The command as a person types it: `animalclf` in place of the file that Python runs for it."""
    file = os.path.normpath(argv[0])
    modules = tuple(os.path.join("animalclf", name) for name in ("__main__.py", "cli.py"))
    is_ours = os.path.basename(file) == "animalclf" or file.endswith(modules)
    return ["animalclf", *argv[1:]] if is_ours else argv


@contextmanager
def set_caller(text: str = "") -> Iterator[None]:
    """Within this block the caller is the call `text`, which starts now, or (without `text`) this process's command. In
    nested blocks the outer one wins."""
    if _of_thread.get():
        yield
        return
    this = Caller(redact_command(text), time.time()) if text else _process()
    token = _of_thread.set(this)
    _running.append(this)
    try:
        yield
    finally:
        _running.remove(this)
        _of_thread.reset(token)


def seconds_since_start() -> float:
    """Seconds since the running command (its process's start and imports included) or call started."""
    return time.time() - caller().started
