"""Every key of the configuration tree by its dotted name, as errors and documents describe it."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from typing import Any, Literal

from pydantic.fields import FieldInfo

from animalclf.config.schema import Config
from animalclf.config.values import Registered

# Old name -> current name.
RENAMED = {
    "data.near_copies": "data.near_duplicates",
    "data.max_bad": "data.max_unreadable",
}

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_LIMITS = ("gt", "ge", "lt", "le")


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of the tree, for errors and documents: its dotted name, default, documentation, and what it takes."""

    name: str
    default: Any
    doc: str
    annotation: Any
    limits: dict[str, float]  # gt, ge, lt, le as in pydantic; of a list, those of its elements
    registered: Registered | None = None

    @property
    def summary(self) -> str:
        """The first sentence of the documentation, without its full stop."""
        return re.split(r"[.;](?: |$)", self.doc, maxsplit=1)[0]

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a key that takes one of a few; else empty."""
        if self.registered:
            return tuple(self.registered.names())
        return typing.get_args(self.annotation) if typing.get_origin(self.annotation) is Literal else ()

    @property
    def elements(self) -> tuple[Any, ...]:
        """The types of the elements of a key that takes a list (the last is `...` if their number is free); else
        empty."""
        return typing.get_args(self.annotation) if typing.get_origin(self.annotation) is tuple else ()

    @property
    def value_kind(self) -> str:
        """What a value, or an element of a list, is: a whole number, a number, true or false, text, or one of the
        choices."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        return _KINDS[_plain(self.elements[0])[0] if self.elements else self.annotation]

    @property
    def kind(self) -> str:
        """What the key takes, its range included: `a whole number, at least 1`, `a list of 2, each a number, above
        0`."""
        prefix = ""
        if self.elements:
            prefix = "a list, each " if self.elements[-1] is ... else f"a list of {len(self.elements)}, each "
        return f"{prefix}{self.value_kind}{', ' if self.range else ''}{self.range}"

    @property
    def range(self) -> str:
        """The limits in words: at least 1, above 0, from 0 to below 1; empty if there are none."""
        low = next((self.limits[name] for name in ("gt", "ge") if name in self.limits), None)
        high = next((self.limits[name] for name in ("lt", "le") if name in self.limits), None)
        if high is None:
            if low is None:
                return ""
            return f"above {low}" if "gt" in self.limits else "0 or more" if low == 0 else f"at least {low}"
        start = f"above {low} and" if "gt" in self.limits else f"from {low} to"
        return (
            f"{start} below {high}"
            if "lt" in self.limits
            else f"{start}{' up to' if 'gt' in self.limits else ''} {high}"
        )


def groups() -> dict[str, type]:
    """The groups of keys by name, each a dataclass whose docstring documents it; under "" the tree itself."""
    return {"": Config} | {
        name: info.annotation for name, info in _fields(Config).items() if dataclasses.is_dataclass(info.annotation)
    }


def keys() -> dict[str, Key]:
    """Every key by its dotted name, in the order of the tree."""
    return {key.name: key for key in _walk(Config, "")}


def _walk(cls: Any, prefix: str) -> Iterator[Key]:
    for name, info in _fields(cls).items():
        if dataclasses.is_dataclass(info.annotation):
            yield from _walk(info.annotation, f"{name}.")
            continue
        elements = typing.get_args(info.annotation) if typing.get_origin(info.annotation) is tuple else ()
        constraints = [*info.metadata, *(_plain(elements[0])[1] if elements else ())]
        limits = {
            limit: getattr(constraint, limit)
            for constraint in constraints
            for limit in _LIMITS
            if hasattr(constraint, limit)
        }
        registered = next((constraint for constraint in constraints if isinstance(constraint, Registered)), None)
        entries = registered.docs() if registered else {}
        doc = [*(info.description or "").split(), *(f"{entry}: {text}" for entry, text in entries.items())]
        yield Key(f"{prefix}{name}", info.default, " ".join(doc), info.annotation, limits, registered)


def _fields(cls: Any) -> dict[str, FieldInfo]:
    fields: dict[str, FieldInfo] = cls.__pydantic_fields__
    return fields


def _plain(annotation: Any) -> tuple[Any, list[Any]]:
    """An annotation as its type and the constraints that are attached to it."""
    info = FieldInfo.from_annotation(annotation)
    return info.annotation, info.metadata
