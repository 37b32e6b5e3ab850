"""The pieces of a comparison file and of its flags, read and checked one by one. Every function raises UserError for what it cannot take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from animalclf.config import nearest
from animalclf.errors import UserError


def known(tree: Mapping[str, Any], keys: Sequence[str], what: str) -> None:
    """Refuse what is none of `keys`, with the nearest one."""
    for key in tree:
        if key not in keys:
            raise UserError(f"unknown key {key!r} in the {what}{nearest(str(key), keys)}; there are {', '.join(keys)}")


def mapping(tree: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The mapping that `tree` has for `key`; an empty one where it has none."""
    value = tree.get(key) or {}
    if not isinstance(value, dict):
        raise UserError(f"{key}: a mapping of configuration keys to values, not {value!r}")
    return value


def listed(text: str) -> list[Any]:
    """`1e-3,3e-4` or `[block5,head],[head]` as a list."""
    try:
        return list(yaml.safe_load(f"[{text}]"))
    except yaml.YAMLError as error:
        raise UserError(f"{text}: not a list of values separated by commas: {error}") from error


def values(key: str, values: Any) -> list[Any]:
    """The values of a key of the grid, at least one."""
    found = list(values) if isinstance(values, list) else [values]
    if not [value for value in found if value not in (None, "")]:
        raise UserError(f"grid {key}: no values; write for example {key}=1e-3,3e-4")
    return found


def seeds(given: Any) -> list[int]:
    """Seeds of a number of them, or of a list."""
    wrong = UserError(f"seeds: {given!r} is neither a number of seeds from 1 nor a list of whole numbers such as 0,5")
    if isinstance(given, str):
        given = int(given) if given.isdecimal() else given
    seeds = list(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given
    if not isinstance(seeds, list) or not seeds or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise wrong
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds: {', '.join(map(str, seeds))} names a seed twice")
    return seeds


def one_of(key: str, value: Any, choices: Sequence[str]) -> str:
    """`value`, which must be one of `choices`."""
    if value not in choices:
        raise UserError(f"{key}: {value!r} is not one of {', '.join(choices)}{nearest(str(value), choices)}")
    return str(value)
