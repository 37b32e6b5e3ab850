"""Stopping a training from another thread, with Ray's public API only.

The request is written to the training's mailbox, and its workers are ended on every node, which frees their resources.
Ray Train's controller then sees dead workers and calls `EndRun`, whose error ends the run instead of restarting it.
Workers that start after the request read it and return at once.
"""

from __future__ import annotations

import threading
from typing import Any

import ray
import ray.train


class Stopped(Exception):
    """The training was stopped by its switch."""


class Switch:
    """Stops one training from another thread: `stop()`, then `wait()`; after that no worker is left. Workers that are
    starting finish their start first."""

    def __init__(self) -> None:
        self.requested = False
        self._lock, self._ended, self._mailbox = threading.Lock(), threading.Event(), None
        self._ended.set()

    def begin(self, mailbox: Any) -> None:
        """The training with this mailbox (an actor handle) starts. Raises Stopped if `stop` was called before."""
        with self._lock:
            if self.requested:
                raise Stopped
            self._mailbox = mailbox
            self._ended.clear()

    def end(self) -> None:
        """The training and its workers have ended."""
        self._ended.set()

    def stop(self) -> None:
        """Request the end, without waiting for it."""
        with self._lock:
            self.requested = True
            if self._mailbox is None or self._ended.is_set():
                return
        end_workers(ray.get(self._mailbox.stop.remote()))

    def workers(self) -> Any:
        """The training's workers, as for `end_workers`; None before they start and after they end."""
        with self._lock:
            if self._mailbox is None or self._ended.is_set():
                return None
        return ray.get(self._mailbox.workers.remote())

    def wait(self, timeout: float | None = None) -> None:
        """Wait until no training runs, at most `timeout` seconds."""
        self._ended.wait(timeout)


def end_workers(workers: Any) -> None:
    """End the workers of a training and free their resources. `workers`: their placement group, the actor handle of the
    only one, or None. Nothing happens if they have ended."""
    if isinstance(workers, ray.actor.ActorHandle):
        ray.kill(workers)
    elif workers is not None:
        ray.util.remove_placement_group(workers)


class EndRun(ray.train.UserCallback):
    """In Ray Train's controller: ends the run after a failure of its workers if it is to stop."""

    def __init__(self, mailbox: Any) -> None:
        self.mailbox = mailbox

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        if ray.get(self.mailbox.stopped.remote()):
            raise Stopped
