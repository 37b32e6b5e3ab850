"""Ctrl-C and SIGTERM: both interrupt the command, and neither is lost during imports and while Ray starts."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

Handler = Callable[[int, FrameType | None], object]
CLEANUP_SECONDS = 8.0  # after SIGTERM; Docker kills after 10
_terminated = threading.Event()


class Terminated(KeyboardInterrupt):
    """SIGTERM, which schedulers and `docker stop` send: handled like Ctrl-C."""


def handle_sigterm(give_up: Callable[[], object]) -> None:
    """From now on SIGTERM raises Terminated in the main thread, once. A process that ignores the signal continues to do
    so. If the process still runs CLEANUP_SECONDS later, `give_up` is called in another thread: it ends the process."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        return
    signal.signal(signal.SIGTERM, _terminate)

    def watch() -> None:
        _terminated.wait()
        time.sleep(CLEANUP_SECONDS)
        give_up()

    threading.Thread(target=watch, daemon=True).start()


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would break the cleanup
    _terminated.set()
    raise Terminated


HANDLERS: dict[signal.Signals, Handler] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _terminate}


@contextmanager
def delayed_interrupt() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM to the end of the block. During an import Python may lose them."""
    handlers = {number: handler for number, handler in HANDLERS.items() if signal.getsignal(number) is handler}
    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    received: list[int] = []
    for number in handlers:  # background jobs ignore signals, and programs that call the API have their own handlers
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        handlers[signal.Signals(received[0])](received[0], None)


@contextmanager
def blocked_sigterm() -> Iterator[None]:
    """Delay SIGTERM to the end of the block. Processes that start within it never react to SIGTERM."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def own_sigterm() -> Iterator[bool]:
    """For the block in which `ray.init` replaces the handler of SIGTERM by one that raises SystemExit. The exit becomes
    Terminated, and after the block the handler is this module's again, if it was before; this is the block's value."""
    if signal.getsignal(signal.SIGTERM) is not _terminate:
        yield False
        return
    handler: Handler | signal.Handlers = _terminate
    try:
        yield True
    except SystemExit as error:
        handler = signal.SIG_IGN
        _terminated.set()
        raise Terminated from error
    except Terminated:
        handler = signal.SIG_IGN
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
