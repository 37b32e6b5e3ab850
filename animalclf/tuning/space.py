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

from animalclf import config as configuration
from animalclf.config import Config, assignment, flat, nearest, put, read
from animalclf.errors import UserError
from animalclf.tuning import reading
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
    given: tuple[str, ...] = ()  # the data keys that were set by name, for all recipes or for one

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
    overrides: Mapping[str, Any] | None = None,
    seeds: str = "",
    grid: Sequence[str] = (),
    search: Sequence[str] = (),
    samples: int = 0,
    schedule: str = "",
    searcher: str = "",
) -> Plan:
    """The comparison that a YAML `file` and the flags ask for: `recipes` "big_cnn,vgg16", `overrides` {"train.epochs": 5}, `seeds` "3" or "0,5"
    ("7," is the one seed 7), `grid` ["optim.lr=1e-3,3e-4"], `search` ["optim.lr=log:1e-5:1e-2"].

    Raises UserError for unknown recipes and keys, a trial that stands there twice, an empty grid or search, and what cannot be compared.
    """
    tree = read(file, "comparison file") if file else {}
    tree["set"] = {**reading.mapping(tree, "set"), **(overrides or {})}
    flags = {
        "recipes": [name.strip() for name in recipes.split(",") if name.strip()],
        "seeds": reading.listed(seeds) if "," in seeds else seeds,
        "grid": {key: reading.listed(text) for key, text in (assignment("--grid", item, raw=True) for item in grid)},
        "search": dict(assignment("--search", item, raw=True) for item in search),
        "samples": samples,
        "schedule": schedule,
        "searcher": searcher,
    }
    return from_dict(tree | {key: value for key, value in flags.items() if value})


def from_dict(tree: dict[str, Any]) -> Plan:
    """The comparison of a parsed comparison file. Raises UserError as `plan` does."""
    keys = ("recipes", "seeds", "set", "grid", "search", "samples", "searcher", "schedule")
    reading.known(tree, keys, "comparison")
    common, grid = reading.mapping(tree, "set"), reading.mapping(tree, "grid")
    seeds = reading.seeds(tree.get("seeds") or 1)
    searcher = reading.one_of("searcher", tree.get("searcher") or "random", ("random", "optuna"))
    schedule = reading.one_of("schedule", tree.get("schedule") or "none", ("none", "asha"))
    samples = tree.get("samples") or 0
    if not isinstance(samples, int) or samples < 0:
        raise UserError(f"samples: {samples!r} is not a number of trials")
    items = tree.get("recipes") or []
    if not items:
        raise UserError("no recipes to compare; name some: --recipes big_cnn,vgg16, or `recipes:` in the comparison file")
    bases = [_base(item, common) for item in (items if isinstance(items, list) else [items])]
    ranges = [_range(key, value, bases) for key, value in reading.mapping(tree, "search").items()]
    check_given(common, grid, ranges, samples, searcher)
    steps = [dict(zip(grid, values, strict=True)) for values in itertools.product(*(reading.values(key, grid[key]) for key in grid))]
    draws = [{}] if searcher == "optuna" or not ranges else _draw(ranges, samples, seeds[0])
    trials = []
    for base in bases:
        for step, drawn, seed in itertools.product(steps, draws, seeds):
            trials.append(varied(Trial(base.name, replace(base.config, seed=seed)), {**step, **drawn}))
    given = tuple(sorted(key for key in {*common, *grid, *(key for item in items for key in _own(item))} if key.startswith("data.")))
    found = Plan(tuple(trials), schedule, searcher, tuple(ranges) if searcher == "optuna" else (), samples, given)
    check_plan(found)
    return found


def varied(base: Trial, values: Mapping[str, Any]) -> Trial:
    """`base` with `values` laid over its configuration and said in its label. Raises UserError for an unknown key or a wrong value."""
    config = overlaid(base.config, values)
    settings = flat(configuration.to_dict(config))
    last = [key.rpartition(".")[2] for key in values]
    said = [f"{short if last.count(short) == 1 else key}={_text(settings[key])}" for key, short in zip(values, last, strict=True)]
    name = " ".join([base.name, *said])
    return Trial(name, replace(config, name=name))


def overlaid(config: Config, values: Mapping[str, Any]) -> Config:
    """`config` with dotted `values`. Raises UserError for an unknown key or a wrong value."""
    tree = configuration.to_dict(config)
    for key, value in values.items():
        put(tree, str(key), value, key)
    return configuration.from_dict(tree)


def measure(config: Config) -> tuple[str, str]:
    """The reported metric that `train.monitor` names, and whether its "max" or its "min" is best."""
    return f"val_{config.train.monitor}", "min" if config.train.monitor == "loss" else "max"


def _own(item: Any) -> dict[str, Any]:
    return reading.mapping(item, "set") if isinstance(item, dict) else {}


def _base(item: Any, common: Mapping[str, Any]) -> Trial:
    """A recipe of the comparison with its settings; its own win over those for all."""
    if isinstance(item, dict):
        reading.known(item, ("recipe", "name", "set"), "recipe")
    recipe, name = (item.get("recipe"), item.get("name")) if isinstance(item, dict) else (item, None)
    if not isinstance(recipe, str):
        raise UserError(f"recipes: {item!r} is neither the name of a recipe nor {{recipe: NAME, name: LABEL, set: {{...}}}}")
    config = overlaid(configuration.load(recipe), {**common, **_own(item)})
    label = str(name or config.name)
    return Trial(label, replace(config, name=label))


def _range(key: str, value: Any, bases: Sequence[Trial]) -> Range:
    """`log:1e-5:1e-2`, `0:0.5`, `a,b,c` or a list as a Range of the configuration's `key`."""
    settings = flat(configuration.to_dict(bases[0].config))
    if key not in settings:
        raise UserError(f"search: unknown key {key}{nearest(key, settings)}")
    if isinstance(value, list) or ":" not in str(value):
        choices = value if isinstance(value, list) else reading.listed(str(value or ""))
        if not choices:
            raise UserError(f"search {key}: nothing to choose from; write for example log:1e-5:1e-2, 0:0.5 or a,b,c")
        return Range(key, choices=tuple(choices))
    *how, low, high = str(value).split(":")
    try:
        found = Range(key, float(low), float(high), log=how == ["log"], whole=isinstance(settings[key], int) and not isinstance(settings[key], bool))
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
