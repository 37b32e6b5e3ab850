"""Configurations from recipes, files and dotted overrides, and back to plain data. Errors name the dotted key and the
remedy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from pydantic import TypeAdapter, ValidationError

from animalclf.config.families import FAMILIES, backbone_settings, family_name, split_family
from animalclf.config.keys import RENAMED, Key, groups, keys
from animalclf.config.schema import Config, Data
from animalclf.errors import UserError
from animalclf.utils import storage
from animalclf.utils.registry import nearest
from animalclf.utils.text import cut, printable, reason, shown
from animalclf.utils.yaml_text import dump_yaml, parse_yaml

MAX_FAULTS = 20  # wrong keys in a message
# Keys under the names that other libraries give them.
SYNONYMS = {
    **dict.fromkeys(("learning_rate", "base_lr", "max_lr"), "optim.lr"),
    **dict.fromkeys(("image_size", "img_size", "imgsz", "resolution"), "model.input_size"),
    **dict.fromkeys(("backbone", "arch", "architecture"), "model.name"),
    **dict.fromkeys(("num_epochs", "n_epochs", "max_epochs"), "train.epochs"),
    **dict.fromkeys(("bs", "batch"), "train.batch_size"),
    "pretrained": "model.weights",
}
LAST_KEY = "train.max_failures"  # of every configuration that `to_yaml` wrote, in all versions
Tree = dict[str, Any]  # nested mappings of keys to plain values, as YAML has them


def recipe_names() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in resources.files("animalclf.recipes").iterdir()
        if entry.name.endswith(".yaml")
    )


def recipe_file(recipe: str) -> str:
    """The path or s3:// URL of a recipe's file. Raises UserError for an unknown name, with the nearest one."""
    if recipe in recipe_names():
        return str(resources.files("animalclf.recipes").joinpath(f"{recipe}.yaml"))
    if recipe.endswith((".yaml", ".yml")):
        return recipe
    listed = f"recipes: {', '.join(recipe_names())}, features:BACKBONE, tuned:BACKBONE, or the path of a .yaml file"
    raise UserError(f"unknown recipe {recipe!r}{nearest(recipe, recipe_names())}; {listed}")


def load(recipe: str = "big_cnn", overrides: Mapping[str, object] | None = None) -> Config:
    """The configuration of `recipe` (a name, `features:BACKBONE`, `tuned:BACKBONE`, or the path or s3:// URL
    of a YAML file) with `overrides` (see `flatten_overrides`) on top.

    Raises UserError for an unknown recipe or key (naming the nearest) and for a value of the wrong type or range.
    """
    family, backbone = split_family(recipe)
    tree = _rename_keys(read(recipe_file(FAMILIES.get(family, recipe)), "recipe file"), "")
    settings = backbone_settings(family, backbone) if family else {}
    for key, value in (settings | flatten_overrides(overrides or {})).items():
        set_key(tree, key, value)
    return from_dict(tree)


def load_whole(url: str) -> Config:
    """The configuration in a file that `to_yaml` wrote. Raises UserError that names the file, also if its last lines
    are missing: their keys would get their defaults."""
    content = storage.read_own(url)
    try:
        tree = _parsed(content, url, "configuration")
    except UserError as error:
        raise UserError(f"{error}; {storage.RESTORE}") from error
    if LAST_KEY not in flatten(tree) or not content.endswith(b"\n"):
        raise UserError(f"{url}: is cut, its last lines are missing; {storage.RESTORE}")
    try:
        return from_dict(tree)
    except UserError as error:
        raise UserError(f"{url}: {error}; {storage.RESTORE}") from error


def from_dict(tree: Tree) -> Config:
    """A validated Config from plain data (a parsed recipe, or the result of `to_dict`); missing keys get their
    defaults. Raises UserError."""
    config: Config = _validate(Config, tree, "")
    return dataclasses.replace(config, name=family_name(config.name, config.model.name))


def data_from_dict(tree: Tree) -> Data:
    """The Data settings that a prepared set stores. Raises UserError."""
    data: Data = _validate(Data, tree, "data.")
    return data


def to_dict(settings: Any) -> Tree:
    """A configuration or a group of it as plain data (dicts, lists, numbers, text)."""
    return {field.name: _plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def to_yaml(config: Config) -> str:
    """The text of a recipe file that holds every key."""
    return dump_yaml(to_dict(config))


def hashed_json(data: Data) -> str:
    """The data settings as the JSON that hashes of prepared sets are made of: keys under their first names, and
    without added keys at their defaults, so that renamed and added keys leave all hashes as they are. What
    data.corrections changes is hashed, not where its file is."""
    first_names = {name: old for old, name in RENAMED.items()}
    added = {
        "splits": "auto",
        "resize": "squash",
        "given_split_duplicates": "keep",
        "small_classes": "refuse",
        "corrections": data.corrections,
    }
    settings = {f"data.{key}": value for key, value in to_dict(data).items() if added.get(key) != value}
    first_named = {first_names.get(key, key).removeprefix("data."): value for key, value in settings.items()}
    return json.dumps(first_named, sort_keys=True)


def changed_keys(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (old value, new value) for every key that differs, in the order of the tree."""
    before, after = flatten(to_dict(old)), flatten(to_dict(new))
    return {key: (before[key], after[key]) for key in after if before[key] != after[key]}


def differences(old: Config, new: Config) -> list[str]:
    """`key: old -> new` for every key that differs, in the order of the tree."""
    return [f"{key}: {before} -> {after}" for key, (before, after) in changed_keys(old, new).items()]


def parse_sets(items: Iterable[str], flag: str = "--set") -> Tree:
    """The overrides that a repeated `flag` gives as key=value: dotted key -> value as YAML reads it; the last value of
    a key wins. Raises UserError."""
    overrides: Tree = {}
    for key, value in (assignment(flag, item) for item in items):
        overrides |= flatten_overrides({key: value})
    return overrides


def assignment(flag: str, item: str, raw: bool = False) -> tuple[str, Any]:
    """Key and value of `key=value`, given with `flag`; the value as YAML reads it, or (`raw`) as text. Raises
    UserError."""
    key, equals, value = item.partition("=")
    if not equals or not key.strip():
        raise UserError(f"{flag} {cut(item)}: write it as key=value, for example {flag} optim.lr=1e-3")
    try:
        return key.strip(), value.strip() if raw else parse_yaml(value)
    except ValueError as error:
        raise UserError(f"{flag} {cut(item)}: the value is not valid YAML: {error}") from error


def flatten_overrides(overrides: Mapping[str, object]) -> Tree:
    """`overrides` as dotted key -> value. They may name keys by older names, and a group of keys by a mapping: of a
    group they change the keys that they name. Raises UserError for a key that is given twice, in two spellings."""
    flat: Tree = {}
    for spelling, value in _leaves(overrides):
        key = RENAMED.get(spelling, spelling)
        if key in flat:
            name = printable(key)
            raise UserError(f"{name}: is given twice, in two spellings (in its group, dotted, or by an older name)")
        flat[key] = value
    return flat


def read(url: str, kind: str) -> Tree:
    """The mapping in the YAML or JSON file `url` (a path or an s3:// URL); `kind` is what errors call the file. An
    empty file is an empty mapping. Raises UserError."""
    try:
        content = storage.read_bytes(url)
    except FileNotFoundError as error:
        raise UserError(f"{url}: no such {kind}") from error
    except OSError as error:
        raise UserError(f"{url}: cannot be read as a {kind} ({error.strerror or error})") from error
    return _parsed(content, url, kind)


def _parsed(content: bytes, url: str, kind: str) -> Tree:
    """The mapping that the `content` of the file `url` has. Raises UserError."""
    try:
        tree = parse_yaml(content.decode())
    except UnicodeDecodeError as error:
        remedy = "" if kind == "configuration" else "; save it as UTF-8"
        raise UserError(f"{url}: is not UTF-8 text (byte {error.start}){remedy}") from error
    except ValueError as error:
        raise UserError(f"{url}: not valid YAML: {reason(error)}") from error
    if not isinstance(tree, dict | None):
        raise UserError(f"{url}: a {kind} is a mapping of keys to values")
    return tree or {}


def set_key(tree: Tree, key: str, value: object) -> None:
    """Set the dotted `key` of `tree`. Raises UserError if a part of the key is not a group."""
    node = tree
    *parents, last = RENAMED.get(key, key).split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise UserError(f"{printable(key)}: {parent!r} is a value, not a group of keys")
    node[last] = value


def flatten(tree: Tree, prefix: str = "") -> Tree:
    """`tree` with dotted keys in one mapping."""
    return dict(_leaves(tree, prefix))


def _leaves(tree: Mapping[Any, object], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys and the values of `tree`, in order."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return list(value) if isinstance(value, tuple) else value


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _validate(cls: Any, tree: Any, prefix: str) -> Any:
    """The dataclass `cls` of a tree, whose keys begin with `prefix`. Raises UserError that names every wrong key,
    unknown ones first."""
    tree = _rename_keys(tree, prefix)
    try:
        return _adapter(cls).validate_python(tree)
    except ValidationError as error:
        known = keys()
        unknown, wrong, faults = [], [], error.errors(include_url=False)
        for fault in faults[:MAX_FAULTS]:
            name = prefix + ".".join(map(str, fault["loc"]))
            if fault["type"] in ("unexpected_keyword_argument", "invalid_key"):
                unknown.append(f"unknown key {cut(printable(name)) or repr(name)}{_correction(name, known)}")
            elif fault["type"] == "dataclass_type":
                wrong.append(f"{name or prefix.rstrip('.')}: must be a group of keys, not {shown(fault['input'])}")
            else:
                wrong.append(_fault(fault["type"], fault["input"], fault["loc"], tree, prefix, known))
        more = [f"and {len(faults) - MAX_FAULTS:,} more"] if len(faults) > MAX_FAULTS else []
        raise UserError("; ".join(dict.fromkeys(unknown + wrong + more))) from error


def _correction(name: str, known: Iterable[str]) -> str:
    """The end of a message about the unknown key `name` of a tree."""
    if name in known:
        group, _, key = name.rpartition(".")
        return f"; write it in its group, as {group}: {{{key}: ...}}"
    if synonym := SYNONYMS.get(name.rpartition(".")[2].lower()):
        return f" (did you mean {synonym!r}?)"
    return nearest(name, [*known, *filter(None, groups())])


def _rename_keys(tree: Any, prefix: str) -> Any:
    """`tree`, whose keys begin with `prefix`, with the present names of keys that were renamed. Raises UserError for a
    key under both names."""
    if not isinstance(tree, dict):
        return tree
    renamed: Tree = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        present = RENAMED[key].removeprefix(prefix) if key in RENAMED else name
        if present != name and present in tree:
            raise UserError(f"{key}: is the older name of {RENAMED[key]}, which is there too; leave one of them out")
        renamed[present] = _rename_keys(value, f"{key}.")
    return renamed


def _fault(kind: str, value: Any, path: Sequence[str | int], tree: Any, prefix: str, known: Mapping[str, Key]) -> str:
    """What is wrong with the value at `path` of `tree`, in the schema's own words."""
    names = [part for part in path if isinstance(part, str)]
    key = known[prefix + ".".join(names)]
    if value is None:
        return f"{key.name}: has no value; it takes {key.kind}"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return f"{key.name}: {key.range}, not {shown(value)} ({key.summary})"
    if key.choices:
        hint = nearest(shown(value).strip("'"), key.choices)
        return f"{key.name}: {shown(value)} is not one of {', '.join(key.choices)}{hint}"
    if kind in ("missing", "too_long"):
        for name in names:
            tree = tree[name]
        return f"{key.name}: takes {len(key.elements)} values, got {shown(tree)}"
    if kind == "finite_number" and key.value_kind == "a number":
        return f"{key.name}: {shown(value)} is not a finite number"
    remedy = f"; it takes {key.kind}" if key.range else ""
    return f"{key.name}: {shown(value)} is not {key.value_kind}{remedy}"
