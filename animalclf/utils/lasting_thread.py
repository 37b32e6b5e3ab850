"""A thread that lasts as long as the process, for what ends with the thread that starts it: Linux kills the processes
that Ray starts as soon as the thread that started them ends (prctl(2), PR_SET_PDEATHSIG)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
_calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
_lock = threading.Lock()
_thread: threading.Thread | None = None


def in_lasting_thread(function: Callable[[], T]) -> T:
    """`function()`: in the main thread if this is the main thread, else in a daemon thread that lasts."""
    global _thread
    if threading.current_thread() is threading.main_thread():
        return function()
    with _lock:
        if _thread is None or not _thread.is_alive():  # a forked process has no thread of its parent
            _thread = threading.Thread(target=_work, daemon=True, name="animalclf")
            _thread.start()
    outcome: Future[T] = Future()

    def call() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001  (raised in the thread that waits)
            outcome.set_exception(error)

    _calls.put(call)
    return outcome.result()


def _work() -> None:
    while True:
        _calls.get()()
