"""The command line that Ray records of each process that connects to it: the dashboard and `ray list jobs` show it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from animalclf.raycompat.patches import Replacement, patch, replaced
from animalclf.utils.caller import caller


@contextmanager
def recorded_without_secrets() -> Iterator[None]:
    """`ray.init` in this block records the command as a run does: without the URL of --notify and other secrets."""
    with replaced(redact_entrypoint() or []):
        yield


@patch(("2.56", "2.58", "2.60"), {"ray._private.utils:get_entrypoint_name": ()}, shared=True)
def redact_entrypoint() -> list[Replacement]:
    """Record `caller().text`, which has no secrets. Ray records the arguments of the process as they are.

    It saves no time.
    """
    from ray._private import utils

    return [(utils, "get_entrypoint_name", lambda: caller().text)]
