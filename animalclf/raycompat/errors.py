"""Errors of Ray as one line for users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from animalclf.errors import UserError

_START_TIMEOUT = "timed out during startup"  # in the text of a plain Exception


@contextmanager
def named_worker_errors(remedy: str) -> Iterator[None]:
    """Turn Ray's error about a worker that was ended for memory, or died repeatedly, into a UserError with `remedy`."""
    import ray.exceptions

    try:
        yield
    except ray.exceptions.OutOfMemoryError as error:
        raise UserError(f"a machine is short of memory, and Ray ended a worker there; {remedy}") from error
    except ray.exceptions.WorkerCrashedError as error:
        raise UserError(f"a worker process died repeatedly, probably out of memory; {remedy}") from error


@contextmanager
def named_start_errors() -> Iterator[None]:
    """Turn Ray's error about a start that took too long into a UserError."""
    try:
        yield
    except Exception as error:
        if _START_TIMEOUT in str(error):
            raise UserError(
                "Ray did not start in time: this machine is too busy, or short of memory; run the same command again"
            ) from error
        raise
