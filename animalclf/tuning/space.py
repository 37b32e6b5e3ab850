"""What is to be compared: from flags or a comparison file to the list of trials. Plain Python; nothing here trains.

A comparison file has any of these keys, and each has its flag (a flag wins over the file):

    recipes: [big_cnn, {recipe: vgg16, name: vgg_small, set: {train.epochs: 5}}]
    seeds: 3                                  # 0, 1, 2; or a list: [0, 5]
    set: {data.val: 0.25}                     # for all recipes
    grid: {optim.lr: [1e-3, 3e-4]}            # every combination
    search: {optim.lr: log:1e-5:1e-2}         # or a range LOW:HIGH, or a list to choose from
    samples: 20                               # drawn from `search`
    searcher: random                          # or optuna
    schedule: none                            # or asha: stops trials of one recipe that fall behind
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from animalclf import config as configuration
from animalclf import storage
from animalclf.config import Config
from animalclf.errors import UserError
from animalclf.tuning.rules import check_given, check_plan


@dataclass(frozen=True)
class Trial:
    """One training. `name` is its label, the same for all seeds: the recipe, and what the grid or the search changed."""

    name: str
    config: Config

    @property
    def slug(self) -> str:
        """The name of the run folder: the label with safe characters only, and the seed."""
        return f"{re.sub(r'[^A-Za-z0-9._]+', '-', self.name).strip('-.')}-s{self.config.seed}"


@dataclass(frozen=True)
class Range:
    """Where a search draws the values of `key`: from `choices`, or between `low` and `high`, evenly in the value or (`log`) in its logarithm."""

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    def draw(self, generator: random.Random) -> Any:
        if self.choices:
            return generator.choice(self.choices)
        if self.log:
            return self.fitting(math.exp(generator.uniform(math.log(self.low), math.log(self.high))))
        return self.fitting(generator.uniform(self.low, self.high))

    def fitting(self, value: float) -> Any:
        """`value` as the key takes it: whole, or to three significant digits, so that the label tells all of it."""
        return round(value) if self.whole else float(f"{value:.3g}")


@dataclass(frozen=True)
class Plan:
    """A comparison before any work. With `searcher` optuna `trials` holds the one trial that the search varies, otherwise all there are."""

    trials: tuple[Trial, ...]
    schedule: str = "none"  # none or asha
    searcher: str = "random"  # random or optuna
    search: tuple[Range, ...] = ()
    samples: int = 0
    given: tuple[str, ...] = ()  # `key=value` of every data setting that was asked for by name

    @property
    def searching(self) -> bool:
        """True where the trials are found while others run."""
        return self.searcher == "optuna"

    def trial(self, values: Mapping[str, Any]) -> Trial:
        """The trial of a search that tries `values` (key -> value)."""
        base = self.trials[0]
        found = {item.key: values[item.key] if item.choices else item.fitting(values[item.key]) for item in self.search}
        return varied(base, found)


def plan(
    file: str = "",
    *,
    recipes: str = "",
    sets: Sequence[str] = (),
    seeds: str = "",
    grid: Sequence[str] = (),
    search: Sequence[str] = (),
    samples: int = 0,
    schedule: str = "",
    searcher: str = "",
) -> Plan:
    """The comparison that a YAML `file` and the flags ask for: `recipes` "big_cnn,vgg16", `sets` ["train.epochs=5"], `seeds` "3" or "0,5" ("7," is
    the one seed 7), `grid` ["optim.lr=1e-3,3e-4"], `search` ["optim.lr=log:1e-5:1e-2"].

    Raises UserError for unknown recipes and keys, a trial that stands there twice, an empty grid or search, and what cannot be compared.
    """
    tree = _read(file) if file else {}
    tree["set"] = {**_mapping(tree, "set"), **dict(_assignment("--set", item) for item in sets)}
    flags = {
        "recipes": [name.strip() for name in recipes.split(",") if name.strip()],
        "seeds": _listed(seeds) if "," in seeds else seeds,
        "grid": {key: _listed(text) for key, text in (_assignment("--grid", item, raw=True) for item in grid)},
        "search": dict(_assignment("--search", item, raw=True) for item in search),
        "samples": samples,
        "schedule": schedule,
        "searcher": searcher,
    }
    return from_dict(tree | {key: value for key, value in flags.items() if value})


def from_dict(tree: dict[str, Any]) -> Plan:
    """The comparison of a parsed comparison file. Raises UserError as `plan` does."""
    keys = ("recipes", "seeds", "set", "grid", "search", "samples", "searcher", "schedule")
    _known(tree, keys, "comparison")
    common, grid = _mapping(tree, "set"), _mapping(tree, "grid")
    seeds = _seeds(tree.get("seeds") or 1)
    searcher = _one_of("searcher", tree.get("searcher") or "random", ("random", "optuna"))
    schedule = _one_of("schedule", tree.get("schedule") or "none", ("none", "asha"))
    samples = tree.get("samples") or 0
    if not isinstance(samples, int) or samples < 0:
        raise UserError(f"samples: {samples!r} is not a number of trials")
    items = tree.get("recipes") or []
    if not items:
        raise UserError("no recipes to compare; name some: --recipes big_cnn,vgg16, or `recipes:` in the comparison file")
    bases = [_base(item, common) for item in (items if isinstance(items, list) else [items])]
    ranges = [_range(key, value, bases) for key, value in _mapping(tree, "search").items()]
    check_given(common, grid, ranges, samples, searcher)
    steps = [dict(zip(grid, values, strict=True)) for values in itertools.product(*(_values(key, grid[key]) for key in grid))]
    draws = [{}] if searcher == "optuna" or not ranges else _draw(ranges, samples, seeds[0])
    trials = []
    for base in bases:
        for step, drawn, seed in itertools.product(steps, draws, seeds):
            trials.append(varied(Trial(base.name, replace(base.config, seed=seed)), {**step, **drawn}))
    given = tuple(sorted({f"{key}=" for key in [*common, *grid, *(key for item in items for key in _own(item))] if key.startswith("data.")}))
    found = Plan(tuple(trials), schedule, searcher, tuple(ranges) if searcher == "optuna" else (), samples, given)
    check_plan(found)
    return found


def varied(base: Trial, values: Mapping[str, Any]) -> Trial:
    """`base` with `values` laid over its configuration and said in its label. Raises UserError for an unknown key or a wrong value."""
    config = overlaid(base.config, values)
    flat = configuration._flat(configuration.to_dict(config))
    last = [key.rpartition(".")[2] for key in values]
    said = [f"{short if last.count(short) == 1 else key}={_text(flat[key])}" for key, short in zip(values, last, strict=True)]
    name = " ".join([base.name, *said])
    return Trial(name, replace(config, name=name))


def overlaid(config: Config, values: Mapping[str, Any]) -> Config:
    """`config` with dotted `values`. Raises UserError for an unknown key or a wrong value."""
    tree = configuration.to_dict(config)
    for key, value in values.items():
        node = tree
        *parents, last = str(key).split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UserError(f"{key}: {parent!r} is a value, not a group of keys")
        node[last] = value
    return configuration.from_dict(tree)


def measure(config: Config) -> tuple[str, str]:
    """The reported metric that `train.monitor` names, and whether its "max" or its "min" is best."""
    return f"val_{config.train.monitor}", "min" if config.train.monitor == "loss" else "max"


# ------------------------------------------------------------------------------------------------------------------------- the pieces


def _read(file: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(storage.read_bytes(file).decode())
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such comparison file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{file}: a comparison file is a mapping of keys to values, such as `recipes: [big_cnn, vgg16]`")
    return tree


def _known(tree: Mapping[str, Any], keys: Sequence[str], what: str) -> None:
    for key in tree:
        if key not in keys:
            raise UserError(f"unknown key {key!r} in the {what}{configuration._nearest(str(key), keys)}; there are {', '.join(keys)}")


def _mapping(tree: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = tree.get(key) or {}
    if not isinstance(value, dict):
        raise UserError(f"{key}: a mapping of configuration keys to values, not {value!r}")
    return value


def _assignment(flag: str, item: str, raw: bool = False) -> tuple[str, Any]:
    key, equals, value = item.partition("=")
    if not equals:
        raise UserError(f"{flag} {item}: write it as key=value, for example {flag} optim.lr=1e-3")
    try:
        return key.strip(), value.strip() if raw else yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"{flag} {item}: the value is not valid YAML: {error}") from error


def _listed(text: str) -> list[Any]:
    """`1e-3,3e-4` or `[block5,head],[head]` as a list."""
    try:
        return list(yaml.safe_load(f"[{text}]"))
    except yaml.YAMLError as error:
        raise UserError(f"{text}: not a list of values separated by commas: {error}") from error


def _values(key: str, values: Any) -> list[Any]:
    found = list(values) if isinstance(values, list) else [values]
    if not [value for value in found if value not in (None, "")]:
        raise UserError(f"grid {key}: no values; write for example {key}=1e-3,3e-4")
    return found


def _seeds(given: Any) -> list[int]:
    wrong = UserError(f"seeds: {given!r} is neither a number of seeds from 1 nor a list of whole numbers such as 0,5")
    if isinstance(given, str):
        given = int(given) if given.isdecimal() else given
    seeds = list(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given
    if not isinstance(seeds, list) or not seeds or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise wrong
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds: {', '.join(map(str, seeds))} names a seed twice")
    return seeds


def _one_of(key: str, value: Any, choices: Sequence[str]) -> str:
    if value not in choices:
        raise UserError(f"{key}: {value!r} is not one of {', '.join(choices)}{configuration._nearest(str(value), choices)}")
    return str(value)


def _own(item: Any) -> dict[str, Any]:
    return _mapping(item, "set") if isinstance(item, dict) else {}


def _base(item: Any, common: Mapping[str, Any]) -> Trial:
    """A recipe of the comparison with its settings; its own win over those for all."""
    if isinstance(item, dict):
        _known(item, ("recipe", "name", "set"), "recipe")
    recipe, name = (item.get("recipe"), item.get("name")) if isinstance(item, dict) else (item, None)
    if not isinstance(recipe, str):
        raise UserError(f"recipes: {item!r} is neither the name of a recipe nor {{recipe: NAME, name: LABEL, set: {{...}}}}")
    config = overlaid(configuration.load(recipe), {**common, **_own(item)})
    label = str(name or config.name)
    return Trial(label, replace(config, name=label))


def _range(key: str, value: Any, bases: Sequence[Trial]) -> Range:
    """`log:1e-5:1e-2`, `0:0.5`, `a,b,c` or a list as a Range of the configuration's `key`."""
    flat = configuration._flat(configuration.to_dict(bases[0].config))
    if key not in flat:
        raise UserError(f"search: unknown key {key}{configuration._nearest(key, flat)}")
    if isinstance(value, list) or ":" not in str(value):
        choices = value if isinstance(value, list) else _listed(str(value or ""))
        if not choices:
            raise UserError(f"search {key}: nothing to choose from; write for example log:1e-5:1e-2, 0:0.5 or a,b,c")
        return Range(key, choices=tuple(choices))
    *how, low, high = str(value).split(":")
    try:
        found = Range(key, float(low), float(high), log=how == ["log"], whole=isinstance(flat[key], int) and not isinstance(flat[key], bool))
    except ValueError as error:
        raise UserError(f"search {key}: {value!r} is no range; write log:LOW:HIGH or LOW:HIGH") from error
    if how not in ([], ["log"]):
        raise UserError(f"search {key}: {':'.join(how)!r} is no way to draw; write log:LOW:HIGH or LOW:HIGH")
    if not found.low < found.high or (found.log and found.low <= 0):
        raise UserError(f"search {key}: {value!r} is an empty range; LOW must be below HIGH{', and above 0' if found.log else ''}")
    return found


def _draw(ranges: Sequence[Range], samples: int, seed: int) -> list[dict[str, Any]]:
    """`samples` different draws, or as many as there are; the same for the same seed, and the first ones the same for more samples."""
    generator, drawn = random.Random(seed), []
    for _ in range(20 * samples):
        values = {item.key: item.draw(generator) for item in ranges}
        if values not in drawn:
            drawn.append(values)
        if len(drawn) == samples:
            break
    return drawn


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
