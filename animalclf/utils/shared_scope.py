"""Changes of the process that calls in several threads make together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager


class SharedScope:
    """`with scope.entered(): ...` in several threads: the first block enters the context manager that `make` returns,
    the last one leaves it."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make, self._lock, self._blocks, self._stack = make, threading.Lock(), 0, ExitStack()

    @contextmanager
    def entered(self) -> Iterator[None]:
        with self._lock:
            if not self._blocks:
                self._stack.enter_context(self._make())
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks:
                    self._stack.close()
