"""The switch and the guard of every patch of Ray.

A patch applies only if all of this holds: ANIMALCLF_STOCK_RAY does not turn it off; this process belongs to a Ray
that animalclf started (other clusters stay stock Ray), or the patch is a shared one; it was written for the version of
the running Ray; and every private name that it uses exists, with the expected parameters. Otherwise the patch logs one
line and does nothing.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

STOCK_RAY_VARIABLE = "ANIMALCLF_STOCK_RAY"  # "1": no patches; names of patches, separated by commas: without these
OWN_RAY_VARIABLE = "ANIMALCLF_OWN_RAY"  # in the environment of all processes of a Ray that animalclf started

P = ParamSpec("P")
T = TypeVar("T")
Replacement = tuple[Any, str, Any]  # a module or class, the name of its attribute, the new value
log = logging.getLogger(__name__)
PATCHES: list[Callable[[], str]] = []  # for each imported patch: why it does not apply here, or ""


def patch(
    versions: tuple[str, ...], needs: Mapping[str, tuple[str, ...] | None], shared: bool = False
) -> Callable[[Callable[P, T]], Callable[P, T | None]]:
    """Decorator that guards a patch: called if the patch must not apply, it logs one line and returns None.

    `versions`: of Ray, as "2.60". `needs`: each private name that the patch uses, as "module:name.name" -> the names of
    its parameters, or None for what is not called. `shared`: the patch applies on any cluster; only for patches that
    change nothing for other code in this process.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T | None]:
        @functools.wraps(function)
        def guarded(*arguments: P.args, **keywords: P.kwargs) -> T | None:
            reason = refusal(function.__name__, versions, needs, shared)
            if reason:
                log.info("patch %s of Ray is not applied: %s", function.__name__, reason)
                return None
            return function(*arguments, **keywords)

        PATCHES.append(functools.partial(refusal, function.__name__, versions, needs, shared))
        return guarded

    return decorate


def refusal(
    name: str, versions: tuple[str, ...], needs: Mapping[str, tuple[str, ...] | None], shared: bool = False
) -> str:
    """Why the patch `name` must not apply here; empty if it may."""
    import ray

    off = os.environ.get(STOCK_RAY_VARIABLE, "")
    if off == "1" or name in off.split(","):
        return f"{STOCK_RAY_VARIABLE}={off}"
    if not shared and not os.environ.get(OWN_RAY_VARIABLE):
        return "this Ray was not started by animalclf"
    if ray.__version__.rpartition(".")[0] not in versions:
        return f"written for Ray {', '.join(versions)}, this is {ray.__version__}"
    return next(filter(None, (_difference(path, parameters) for path, parameters in needs.items())), "")


@contextmanager
def replaced(replacements: list[Replacement]) -> Iterator[None]:
    """Within the block the attributes have their new values."""
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replacements]
    _set(replacements)
    try:
        yield
    finally:
        _set(originals)


def _set(replacements: list[Replacement]) -> None:
    for owner, name, value in replacements:
        setattr(owner, name, value)


def _difference(path: str, parameters: tuple[str, ...] | None) -> str:
    """How the private name at `path` differs from what the patch expects; empty if it does not."""
    module, _, names = path.partition(":")
    try:
        attribute: Any = functools.reduce(getattr, names.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        return f"{path} is missing ({error})"
    if parameters is None:
        return ""
    try:
        actual = tuple(inspect.signature(attribute).parameters)
    except (TypeError, ValueError) as error:
        return f"{path} has no signature ({error})"
    return "" if actual == parameters else f"{path} takes ({', '.join(actual)}), not ({', '.join(parameters)})"
