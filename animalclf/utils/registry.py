"""Registries: named entries (losses, models, metrics, ...), each registered where it is defined."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from animalclf.errors import UserError
from animalclf.utils.text import shown

T = TypeVar("T")
AnyT = TypeVar("AnyT")


def nearest(word: str, choices: Iterable[str]) -> str:
    """The end of an error message: ` (did you mean 'x'?)` with the choice most similar to `word`, or empty
    if none is similar."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.4)
    return f" (did you mean {close[0]!r}?)" if close else ""


class Registry(Generic[T]):
    """Entries by name, in the order of their registration.

        LOSSES: Registry[Callable[[Config], Loss]] = Registry("loss", key="train.loss")

        @LOSSES.register("cross_entropy")
        def cross_entropy(config: Config) -> Loss: ...

    `kind` names an entry in messages, `key` the configuration key that selects one. `package`: the package whose
    modules register the entries. They are imported at the first lookup, so that a new entry is only a new file.
    """

    def __init__(self, kind: str, *, key: str = "", package: str = "") -> None:
        self.kind, self.key = kind, key
        self._package = package
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[AnyT], AnyT]:
        """A decorator that adds a function, class or object (`register(name)(entry)`) and returns it. Raises ValueError
        for a taken name."""

        def add(entry: AnyT) -> AnyT:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry  # type: ignore[assignment]
            return entry

        return add

    def unregister(self, name: str) -> None:
        """Remove an entry that a test or a notebook added. Raises KeyError if there is none."""
        del self._entries[name]

    def get(self, name: str) -> T:
        """The entry `name`. Raises UserError with the nearest name and all names for an unknown one."""
        self._import_package()
        if name not in self._entries:
            subject = f"{self.key}: {shown(name)}" if self.key else f"{self.kind} {shown(name)}"
            names = ", ".join(self._entries)
            raise UserError(f"{subject} is unknown{nearest(name, self._entries)}; there are {names}")
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, in the order of their registration."""
        self._import_package()
        return list(self._entries)

    def entries(self) -> dict[str, T]:
        """All entries by name, in the order of their registration."""
        self._import_package()
        return dict(self._entries)

    def __contains__(self, name: object) -> bool:
        self._import_package()
        return name in self._entries

    def _import_package(self) -> None:
        if self._package:
            for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
                importlib.import_module(f"{self._package}.{module.name}")
            self._package = ""
