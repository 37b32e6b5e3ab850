"""Registries: named entries (losses, models, metrics, ...), each registered where it is defined: in this package, or in
a module that an installed package names by an entry point of the group PLUGINS. Every process imports these modules, on
all nodes."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
import threading
from collections.abc import Callable, Collection, Iterable
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from typing import Any, Generic, TypeVar

from animalclf.errors import UserError
from animalclf.utils.text import reason, shown

T = TypeVar("T")
AnyT = TypeVar("AnyT")
PLUGINS = "animalclf.plugins"
_plugins: set[str] | None = None  # the top packages of the imported plugins, None before their import
_this_thread = threading.local()  # `imports_plugins`: whether this thread imports them now
# Those that Ray's workers use. A list: other threads, which import networks meanwhile, may add to it during a loop.
_worker_registries: list[Registry[Any]] = []


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
    `in_workers`: whether Ray's workers use the entries, too.
    """

    def __init__(self, kind: str, *, key: str = "", package: str = "", in_workers: bool = False) -> None:
        self.kind, self.key = kind, key
        self._package = package
        self._entries: dict[str, T] = {}
        self.origins: dict[str, str] = {}  # the module that registered an entry
        if in_workers:
            _worker_registries.append(self)

    def register(self, name: str) -> Callable[[AnyT], AnyT]:
        """A decorator that adds a function, class or object (`register(name)(entry)`) and returns it. Raises ValueError
        for a taken name."""

        def add(entry: AnyT) -> AnyT:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry  # type: ignore[assignment]
            self.origins[name] = _calling_module()
            return entry

        return add

    def unregister(self, name: str) -> None:
        """Remove an entry that a test or a notebook added. Raises KeyError if there is none."""
        del self._entries[name], self.origins[name]

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

    def used_by(self, config: Any) -> Collection[str]:
        """The names that a Config has at `key`; all names if there is no key: workers compute every metric."""
        if not self.key:
            return self.names()
        value = attrgetter(self.key)(config)
        return [value] if isinstance(value, str) else value

    def _import_package(self) -> None:
        if package := self._package:  # other threads may look up entries meanwhile; Python imports each module once
            for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
                importlib.import_module(f"{package}.{module.name}")
            self._package = ""
        import_plugins()


def import_plugins() -> None:
    """Import the modules of the entry points PLUGINS, once. Raises UserError for one that cannot be imported."""
    global _plugins
    if _plugins is not None or getattr(_this_thread, "imports_plugins", False):  # a plugin may look up entries
        return
    _this_thread.imports_plugins = True
    try:
        _plugins = {_import_plugin(point) for point in entry_points(group=PLUGINS)}
    finally:
        _this_thread.imports_plugins = False


def _import_plugin(point: EntryPoint) -> str:
    """The name of its top package."""
    try:
        point.load()
    except Exception as error:
        message = f"the plugin {point.name} ({point.value}) cannot be imported: {reason(error)}; fix or uninstall it"
        raise UserError(message) from error
    return point.value.partition(":")[0].partition(".")[0]


def check_workers_know(config: Any, kinds: Collection[str] = ()) -> None:
    """Raise UserError if an entry that Ray's workers need for `config` is registered in this process only, as in a
    notebook. `kinds`: of the registries that they use (default: all)."""
    import_plugins()
    shared = {"animalclf", *(_plugins or ())}
    for registry in _worker_registries:
        if kinds and registry.kind not in kinds:
            continue
        for name in registry.used_by(config):
            module = registry.origins.get(name, "animalclf")
            if module.partition(".")[0] not in shared:
                raise UserError(
                    f"{registry.kind} {shown(name)}: is registered in this process only ({module}), and Ray's workers "
                    f"do not have it; register it in an installed package with an entry point {PLUGINS}, or train "
                    "with --local"
                )


def _calling_module() -> str:
    """The module that registers an entry: this package's modules do so at their import, others may call its
    functions."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_globals["__name__"].startswith("animalclf.") and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return str(frame.f_globals["__name__"])
