"""SIGTERM while Ray starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from animalclf.raycompat.patches import Replacement, patch, replaced


@contextmanager
def kept_handler(own: bool) -> Iterator[None]:
    """With `own`, `ray.init` in this block leaves the handler of SIGTERM as it is."""
    with replaced((keep_handler() or []) if own else []):
        yield


@patch(("2.56", "2.58", "2.60"), {"ray._private.utils:set_sigterm_handler": ("sigterm_handler",)}, shared=True)
def keep_handler() -> list[Replacement]:
    """Ray's handler raises SystemExit, which Python ignores where it cannot raise, as in callbacks of a fork. That of
    animalclf.utils.interrupts ends the process then, too, some seconds later.

    Earns that SIGTERM is never lost while Ray starts.
    """
    from ray._private import utils

    return [(utils, "set_sigterm_handler", lambda sigterm_handler: None)]
