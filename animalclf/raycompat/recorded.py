"""What Ray records, so that its dashboard and logs show it: command lines, and variables of tasks and actors."""

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


@contextmanager
def trials_without_credentials() -> Iterator[None]:
    """Tune in this block records no AWS keys with its trials, which have those of their node."""
    with replaced(drop_credentials() or []):
        yield


@patch(("2.56", "2.58", "2.60"), {"ray.tune.execution.class_cache:ENV_VARS_TO_PROPAGATE": None}, shared=True)
def drop_credentials() -> list[Replacement]:
    """Tune copies AWS keys of this process into the runtime environment of each trial, which Ray logs.

    It saves no time.
    """
    from ray.tune.execution import class_cache

    names = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if not name.startswith("AWS_")}
    return [(class_cache, "ENV_VARS_TO_PROPAGATE", names)]
