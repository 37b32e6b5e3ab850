"""Trees of settings: nested mappings with dotted keys, and the frozen dataclasses that they become; what is wrong is refused with the nearest key."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from typing import Any, Literal

import yaml

from animalclf.errors import UserError
from animalclf.utils import storage


def read(url: str, what: str, loader: Any = yaml.SafeLoader) -> dict[str, Any]:
    """The mapping in a YAML or JSON file (a path or an s3:// URL), which is a `what`; an empty file has an empty one. Raises UserError."""
    try:
        tree = yaml.load(storage.read_bytes(url).decode(), loader)
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such {what}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{url}: not valid YAML: {error}") from error
    if not isinstance(tree, dict | None):
        raise UserError(f"{url}: a {what} is a mapping of keys to values")
    return tree or {}


def assignment(flag: str, item: str, raw: bool = False) -> tuple[str, Any]:
    """Key and value of `key=value`, given with `flag`; the value as YAML reads it, or (`raw`) as it stands. Raises UserError."""
    key, equals, value = item.partition("=")
    if not equals:
        raise UserError(f"{flag} {item}: write it as key=value, for example {flag} optim.lr=1e-3")
    try:
        return key.strip(), value.strip() if raw else yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"{flag} {item}: the value is not valid YAML: {error}") from error


def put(tree: dict[str, Any], key: str, value: Any, said: str) -> None:
    """Set the dotted `key` of `tree`. Raises UserError, which begins with what was `said`, where a part of it is no group."""
    node = tree
    *parents, last = key.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"{said}: {parent!r} is a value, not a group of keys")
    node[last] = value


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`tree` with dotted keys in one mapping."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return found


def to_dict(settings: Any) -> dict[str, Any]:
    """A dataclass as plain data (dicts, lists, numbers, text), which `build` turns back into the same."""
    return {f.name: _plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}


def nearest(word: str, choices: typing.Iterable[str]) -> str:
    """The end of an error: the choice that is most like `word`, or nothing where none is."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.4)
    return f" (did you mean {close[0]!r}?)" if close else ""


def build(cls: Any, tree: Any, prefix: str = "", root: Any = None) -> Any:
    """The dataclass `cls` of a tree, which is the part `prefix` of the dataclass `root` (itself, by default). Raises UserError for an unknown key,
    with the nearest one of `root`, and for a value of the wrong type."""
    root = root or cls
    if not isinstance(tree, dict):
        raise UserError(f"{prefix.rstrip('.')}: must be a group of keys, not {tree!r}")
    hints = typing.get_type_hints(cls)
    for key in tree:
        if key not in hints:
            raise UserError(f"unknown key {prefix}{key}{nearest(f'{prefix}{key}', _keys(root))}")
    values = {}
    for key, value in tree.items():
        hint = hints[key]
        values[key] = build(hint, value, f"{prefix}{key}.", root) if dataclasses.is_dataclass(hint) else _convert(hint, value, f"{prefix}{key}")
    return cls(**values)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return list(value) if isinstance(value, tuple) else value


def _keys(cls: Any, prefix: str = "") -> list[str]:
    hints = typing.get_type_hints(cls)
    keys: list[str] = []
    for f in dataclasses.fields(cls):
        keys += _keys(hints[f.name], f"{prefix}{f.name}.") if dataclasses.is_dataclass(hints[f.name]) else [f"{prefix}{f.name}"]
    return keys


def _convert(hint: Any, value: Any, key: str) -> Any:
    """`value` as the annotated type; YAML reads 1e-4 as text, so text is tried as a number where a number is wanted."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(next(a for a in arguments if a is not type(None)), value, key)
    if origin is Literal:
        value = "none" if value is None and "none" in arguments else value
        if value not in arguments:
            raise UserError(f"{key}: {value!r} is not one of {', '.join(map(str, arguments))}{nearest(str(value), map(str, arguments))}")
        return value
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        kinds = [arguments[0]] * len(items) if arguments[-1] is Ellipsis else list(arguments)
        if len(items) != len(kinds):
            raise UserError(f"{key}: wants {len(kinds)} values, got {value!r}")
        return tuple(_convert(kind, item, key) for kind, item in zip(kinds, items, strict=True))
    if hint is str:
        value = "none" if value is None else value
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return str(value)
    elif hint is bool and isinstance(value, bool):
        return value
    elif hint in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
            if hint is float:
                return number
            if number == int(number):
                return int(number)
        except (TypeError, ValueError, OverflowError):
            pass
    kind = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, str(hint))
    raise UserError(f"{key}: {value!r} is not {kind}")
