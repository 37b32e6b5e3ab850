"""Arguments of a Python call: plain values, checks that name the argument, and messages in Python's words.

A check is a function (name of the argument, plain value) -> value. It raises UserError for a value that the argument
cannot have.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from animalclf.errors import UserError
from animalclf.utils.registry import nearest

Check = Callable[[str, Any], Any]
_MAX_SHOWN = 60  # characters of a wrong value in a message
_COMMAND = r"animalclf [a-z]+(?: --[a-z-]+(?: [^\s-]\S*)?)+"
_SETTING = r"--(?P<group>set|grid|search) (?P<key>[\w.]+)=(?P<setting>\.\.\.|[^\s;,)]*[^\s;,).])"
_TEXT = r"--(?P<text>recipe|recipes|prior) (?P<words>\w+(?:,\w+)*)"
_NUMBER = r"--(?P<number>[a-z-]+) (?P<digits>-?\d[\d:.]*\b|None\b|True\b|False\b)"
_FLAG = r"--(?P<flag>[a-z]+(?:-[a-z]+)*)"
_IN_PYTHON = re.compile("|".join((_COMMAND, _SETTING, _TEXT, _NUMBER, _FLAG)))


def plain(value: Any) -> Any:
    """`value` as Python's own types: paths as str; NumPy scalars, arrays and the like as numbers and lists; ranges and
    tuples as lists."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(item) for item in value]
    return value.tolist() if callable(getattr(value, "tolist", None)) else value


def path(name: str, value: Any) -> str:
    """A local path or a URL."""
    if not isinstance(value, str):
        raise _wrong(name, value, "a path or s3:// URL (str or os.PathLike)")
    if not value.strip() or "\0" in value:
        raise _wrong(name, value, "the path of a file or folder")
    return value


def paths(name: str, value: Any) -> list[str]:
    """One path or several."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise _wrong(name, value, "one path or more")
    return [path(name, item) for item in values]


def text(expected: str) -> Check:
    """Text that is not empty; `expected` describes it in the error."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise _wrong(name, value, expected)
        return value

    return check


def device(name: str, value: Any) -> str:
    """The name of a device, or a torch.device."""
    value = str(value) if f"{type(value).__module__}.{type(value).__name__}" == "torch.device" else value
    return str(text('"auto", "cpu", "cuda" or a torch.device')(name, value))


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise _wrong(name, value, "True or False")
    return value


def integer(minimum: int) -> Check:
    """A whole number from `minimum`."""

    def check(name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise _wrong(name, value, f"a whole number, at least {minimum}")
        return value

    return check


def number(minimum: float) -> Check:
    """A finite number from `minimum`."""

    def check(name: str, value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or value < minimum:
            raise _wrong(name, value, f"a number, at least {minimum:g}")
        return float(value)

    return check


def one_of(*choices: str) -> Check:
    """One of a few texts."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _wrong(name, value, f"one of {', '.join(choices)}", nearest(str(value), choices))
        return value

    return check


def some_of(*choices: str) -> Check:
    """One or more of a few texts, as a list."""

    def check(name: str, value: Any) -> list[str]:
        values = value if isinstance(value, list) else [value]
        if not values:
            raise _wrong(name, value, f"one or more of {', '.join(choices)}")
        return [one_of(*choices)(name, item) for item in values]

    return check


def settings(example: str) -> Check:
    """A mapping of dotted configuration keys; the `example` is for the error."""

    def check(name: str, value: Any) -> Mapping[str, object]:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise _wrong(name, value, f"a mapping of configuration keys, such as {example}")
        return value

    return check


def workers(name: str, value: Any) -> int | str:
    """A number of workers, or "2:8" for elastic ones."""
    return value if isinstance(value, str) else int(integer(0)(name, value))


def replicas(name: str, value: Any) -> int | str:
    """A number of replicas, or "1:4" for as many as the load requires."""
    return value if isinstance(value, str) else int(integer(1)(name, value))


def seeds(name: str, value: Any) -> int | list[int]:
    """How many seeds, or a list of them."""
    if isinstance(value, list) and value:
        return [integer(0)(name, seed) for seed in value]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _wrong(name, value, "a number of seeds, at least 1, or a list of whole numbers such as [0, 5]")
    return value


def recipes(name: str, value: Any) -> list[str | Mapping[str, object]]:
    """Recipes by name, or as mappings with a name and settings."""
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(item, str | dict) and item for item in values):
        example = 'names, or mappings such as {"recipe": "vgg16", "name": "small", "set": {"train.epochs": 5}}'
        raise _wrong(name, value, example)
    return values


def in_python(message: str, flags: Collection[str], parameters: Collection[str]) -> str:
    """`message`, which names flags of the command line, with the arguments of a Python call instead: `--resume` is
    `resume=True` (an argument in `flags`), `--out` is `out`, `--set a.b=1` is `set={"a.b": 1}`. What is in neither
    `flags` nor `parameters`, and commands such as `animalclf prepare --data X`, stay."""

    def argument(match: re.Match[str]) -> str:
        if match["group"]:
            return f'{match["group"]}={{"{match["key"]}": {_literal(match["setting"])}}}'
        if match["text"]:
            words = [f'"{word}"' for word in match["words"].split(",")]
            return f"{match['text']}={words[0] if match['text'] != 'recipes' else '[' + ', '.join(words) + ']'}"
        if match["number"] and match["number"].replace("-", "_") in parameters:
            return f"{match['number'].replace('-', '_')}={_literal(match['digits'])}"
        name = (match["flag"] or "").replace("-", "_")
        return f"{name}=True" if name in flags else name if name in parameters else match[0]

    return _IN_PYTHON.sub(argument, message)


def _literal(value: str) -> str:
    """Text of a command line as a Python literal."""
    return value if re.fullmatch(r"-?\d[\d.]*(e-?\d+)?|\.\.\.|None|True|False", value) else f'"{value}"'


def _wrong(name: str, value: Any, expected: str, hint: str = "") -> UserError:
    shown = repr(value)
    if len(shown) > _MAX_SHOWN or "\n" in shown:
        shown = f"a {type(value).__name__}"
    return UserError(f"{name}: {expected}, not {shown}{hint}")
