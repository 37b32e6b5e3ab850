"""Ctrl-C and SIGTERM: both interrupt the command, and neither is lost during imports, in destructors, and while Ray
starts."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

Handler = Callable[[int, FrameType | None], object]
CLEANUP_SECONDS = 8.0  # after SIGTERM; Docker kills after 10
AGAIN_SECONDS = 0.05  # until an interrupt that Python has swallowed is raised again
_terminated = threading.Event()
_swallowed: list[signal.Signals] = []  # not raised again yet


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


def repeat_swallowed() -> None:
    """From now on an interrupt that Python swallows, because it arrived in a destructor or in the callback of a weak
    reference, is raised again a moment later, or by `raise_swallowed` if that is earlier."""
    show = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            show(unraisable)
            return
        number = signal.SIGTERM if issubclass(unraisable.exc_type, Terminated) else signal.SIGINT
        if number == signal.SIGTERM:
            signal.signal(number, _terminate)
        _swallowed.append(number)
        threading.Timer(AGAIN_SECONDS, again).start()

    def again() -> None:
        if _swallowed:
            os.kill(os.getpid(), _swallowed.pop())

    sys.unraisablehook = hook


def raise_swallowed() -> None:
    """Raise an interrupt that Python has swallowed (see `repeat_swallowed`), if there is one: the command has ended."""
    if _swallowed:
        raise Terminated if _swallowed.pop() == signal.SIGTERM else KeyboardInterrupt


def call_on_interrupt(action: Callable[[], object]) -> None:
    """From now on Ctrl-C and SIGTERM call `action` and raise nothing, where they would have raised an interrupt."""
    for number, handler in HANDLERS.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, lambda number, frame: action())


def ignore_interrupts() -> None:
    """From now on Ctrl-C and SIGTERM do nothing."""
    for number in HANDLERS:
        signal.signal(number, signal.SIG_IGN)


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
