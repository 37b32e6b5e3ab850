"""A line for people when work stands still."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from animalclf.utils.console import show_line

SECONDS = 60.0  # without progress, until the first line and between two of them


@contextmanager
def told_of_stalls(state: Callable[[], str]) -> Iterator[Callable[[], None]]:
    """Within the block a line says when there is no progress for SECONDS, with `state()`, which a thread calls. Yields
    the function that the block calls at each progress."""
    ended, progressed = threading.Event(), threading.Event()

    def watch() -> None:
        while not ended.wait(SECONDS):
            if not progressed.is_set():
                show_line(f"no progress for {SECONDS:.0f} s ({state()})")
            progressed.clear()

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield progressed.set
    finally:
        ended.set()
