"""Documents made from the schema: docs/config.md, the JSON schema of recipe files, and what a recipe's keys mean.

`python -m animalclf.config.reference` writes both files.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from animalclf.config.families import DEFAULT_RECIPE
from animalclf.config.keys import groups, keys
from animalclf.config.parsing import flatten, load, recipe_file, recipe_names, to_dict
from animalclf.config.schema import Config
from animalclf.utils import storage

PACKAGE = Path(__file__).parents[1]
MARKDOWN, JSON_SCHEMA = PACKAGE.parent / "docs" / "config.md", PACKAGE / "recipes" / "schema.json"
_LIMITS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
_INTRODUCTION = """# Configuration

Every key of a recipe file, made from `animalclf/config/schema/` by `python -m animalclf.config.reference`; change it
there.

A recipe file holds the keys that differ from the defaults, in groups: `train: {epochs: 20}`. On the command line
`--set train.epochs=20` changes one key, in Python `set={"train.epochs": 20}`; a group changes the keys that it names:
`--set 'train={epochs: 20}'`, `set={"train": {"epochs": 20}}`. An unknown key, a key that is given twice in a file, a
value of the wrong type and a value out of range are refused before any work. Numbers are decimal: 010 is 10.
`animalclf recipes` lists the recipes that come with the package, and `animalclf recipes NAME` shows one key by key.

The JSON schema for editors, `animalclf/recipes/schema.json`, takes fewer spellings than the commands: those read
numbers also from text (`"3"`; and `1e-3`, which is text in YAML 1.1 and a number in the YAML 1.2 of editors), names
also from numbers, and a single value as a list of one. Rules that concern two keys are not in the schema.
"""


@dataclass(frozen=True)
class RecipeKey:
    """A key of a recipe: its dotted name, value and default, what it takes, and its documentation."""

    key: str
    value: object
    default: object
    changed: bool
    """Whether the value differs from the default."""
    kind: str
    doc: str


def recipe_summaries() -> list[dict[str, str]]:
    """The recipes that come with the package, and their families: `recipe` (its name) and `summary` (its first
    comment)."""
    summaries = {name: _first_comment(name) for name in recipe_names()}
    summaries[DEFAULT_RECIPE] += " The default."
    summaries["features:BACKBONE"] = f"{DEFAULT_RECIPE} with another backbone, such as features:resnet50."
    summaries["tuned:BACKBONE"] = "Any backbone, all layers tuned from a fitted head, such as tuned:resnet50."
    return [{"recipe": name, "summary": summary} for name, summary in summaries.items()]


def explain(recipe: str) -> list[RecipeKey]:
    """Every key of `recipe` (a name or a file), in the order of the tree. Raises UserError for an unknown recipe and a
    wrong file."""
    values, defaults = flatten(to_dict(load(recipe))), flatten(to_dict(Config()))
    return [
        RecipeKey(name, values[name], defaults[name], values[name] != defaults[name], key.kind, key.doc)
        for name, key in keys().items()
    ]


def yaml_text(value: object) -> str:
    """A value as --set takes it."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


def markdown() -> str:
    """The text of docs/config.md."""
    defaults, parts = flatten(to_dict(Config())), [_INTRODUCTION]
    for group, cls in groups().items():
        members = [key for name, key in keys().items() if name.rpartition(".")[0] == group]
        parts.append(f"## {group or 'The run'}\n\n{_wrap(inspect.getdoc(cls) or '')}")
        parts += [
            f"### {key.name}\n\n{key.kind.capitalize()}; default `{yaml_text(defaults[key.name])}`.\n\n{_wrap(key.doc)}"
            for key in members
        ]
    return "\n".join(f"{part.rstrip()}\n" for part in parts)


def json_schema() -> str:
    """The text of the JSON schema of recipe files, for editors."""
    schema = _tidy(TypeAdapter(Config).json_schema())
    for name, key in keys().items():
        group, _, last = name.rpartition(".")
        properties = schema["$defs"][groups()[group].__name__]["properties"] if group else schema["properties"]
        properties[last]["description"] = key.doc
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=1) + "\n"


def write() -> None:
    """Write both files of this checkout."""
    MARKDOWN.write_text(markdown(), encoding="utf-8")
    JSON_SCHEMA.write_text(json_schema(), encoding="utf-8")


def _first_comment(recipe: str) -> str:
    """The first line of the comment that a recipe opens with, or its first sentence if that ends before."""
    lines = storage.read_bytes(recipe_file(recipe)).decode().splitlines()
    comments = (
        line.lstrip("# ").strip() for line in lines if line.startswith("#") and "yaml-language-server" not in line
    )
    return re.split(r"(?<=\.) ", next(comments, ""), maxsplit=1)[0]


def _wrap(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def _tidy(schema: Any) -> Any:
    """`schema` without titles, which repeat the keys, with the lines of each description joined, and with limits by
    their JSON names (pydantic leaves its own if a validator precedes the limit)."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    renamed = {
        _LIMITS.get(key, key): value for key, value in schema.items() if key != "title" or not isinstance(value, str)
    }
    return {
        key: " ".join(value.split()) if key == "description" and isinstance(value, str) else _tidy(value)
        for key, value in renamed.items()
    }


if __name__ == "__main__":
    write()
