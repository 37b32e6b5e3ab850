"""Errors of Ray as one line for users."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from animalclf.errors import UserError
from animalclf.utils.ray_address import temporary_folder
from animalclf.utils.text import reason

_START_TIMEOUT = "timed out during startup"  # in the text of a plain Exception
_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")  # of the cluster, then of this process, in Ray's RuntimeError
_SHORT_OF_MEMORY = "a machine is short of memory, and Ray ended a worker there"
_ENDED = "a worker process of Ray ended unexpectedly, probably out of memory"
_NO_ROOM = "the cluster has no room for a worker"
_RESERVATION = "the cluster gave the reserved CPUs or GPUs to others"
# What a class of ray.exceptions, or one derived from it, means. Of the other classes Ray's own text is shown.
MEANINGS = {
    "OutOfMemoryError": _SHORT_OF_MEMORY,
    "OutOfDiskError": "a machine's disk is full, and Ray cannot store data in its folder, usually /tmp/ray",
    "ObjectStoreFullError": "Ray's memory for images, its object store, is full",
    "ObjectLostError": "data in Ray's memory was lost with the process or machine that held it",
    "NodeDiedError": "a machine of the cluster, or Ray on it, ended",
    "LocalRayletDiedError": "a machine of the cluster, or Ray on it, ended",
    "WorkerCrashedError": _ENDED,
    "RayActorError": _ENDED,
    "TaskUnschedulableError": _NO_ROOM,
    "ActorUnschedulableError": _NO_ROOM,
    "TaskPlacementGroupRemoved": _RESERVATION,
    "ActorPlacementGroupRemoved": _RESERVATION,
    "GetTimeoutError": "Ray did not answer in time",
    "TaskCancelledError": "a task on Ray was cancelled",
}


def causes(error: BaseException) -> list[BaseException]:
    """`error`, and what led to it in tasks, in training workers and in Ray Train's controller; the last is a first
    cause."""
    inner = [getattr(error, name, None) for name in ("cause", "health_check_failure", "controller_failure")]
    inner += getattr(error, "worker_failures", {}).values()
    return [error, *(cause for item in inner if isinstance(item, BaseException) for cause in causes(item))]


def is_rays(error: BaseException) -> bool:
    """Whether the class of an error is Ray's, or derived from one of Ray's."""
    return any(kind.__module__.partition(".")[0] == "ray" for kind in type(error).__mro__)


def ray_problem(error: BaseException, remedy: str) -> str:
    """An error of Ray that ends a command, in one line with its class and `remedy`; empty for another error.

    An error in a task is Ray's, too: of a UserError there, its own text.
    """
    if not is_rays(error):
        return ""
    cause = causes(error)[-1]
    if isinstance(cause, UserError) and not is_rays(cause):
        return str(cause)
    name = type(cause).__name__
    if not is_rays(cause):
        return f"a task on Ray failed with {name}: {reason(cause)}"
    meanings = (MEANINGS[kind.__name__] for kind in type(cause).__mro__ if kind.__name__ in MEANINGS)
    meaning = next(meanings, f"Ray ended the command: {reason(cause)}")
    return f"{meaning} ({name}); {remedy}"


@contextmanager
def named_worker_errors(remedy: str) -> Iterator[None]:
    """Turn Ray's error about a worker that was ended for memory, or died repeatedly, into a UserError with `remedy`."""
    import ray.exceptions

    try:
        yield
    except ray.exceptions.OutOfMemoryError as error:
        raise UserError(f"{_SHORT_OF_MEMORY}; {remedy}") from error
    except ray.exceptions.WorkerCrashedError as error:
        raise UserError(f"a worker process died repeatedly, probably out of memory; {remedy}") from error


@contextmanager
def named_start_errors() -> Iterator[None]:
    """Turn Ray's errors about its folder and about a start that took too long into a UserError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, TimeoutError | ConnectionError):
            # A socket's path has at most 107 bytes.
            raise UserError(
                f"Ray cannot start with its folder in {temporary_folder()}: {reason(error)}; set RAY_TMPDIR to a "
                "folder with a short path in which you can write"
            ) from error
        if _START_TIMEOUT in str(error):
            raise UserError(
                "Ray did not start in time: this machine is too busy, or short of memory; run the same command again"
            ) from error
        raise


def joining_problem(error: Exception) -> str:
    """Why Ray cannot join a cluster, with the remedy if the cluster has other versions of Ray or Python."""
    versions = _VERSIONS.findall(str(error))
    if len(versions) != 2:
        return reason(error)
    cluster, own = (f"Ray {ray} and Python {python}" for ray, python in versions)
    return f"it has {cluster}, this environment {own}; install the same"
