"""Environment variables: set several, and restore them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager


def set_variables(values: Mapping[str, str | None]) -> None:
    """Set environment variables; None removes one."""
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@contextmanager
def restored(names: Iterable[str]) -> Iterator[None]:
    """After the block the environment variables have the values from before it."""
    values = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        set_variables(values)
