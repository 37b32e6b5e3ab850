"""A described comparison becomes a list of trials: recipes, seeds, grid and search, parsed and checked. Plain Python.

A comparison is described by a mapping (a comparison file, the flags of `animalclf compare`, or the Python API):

    recipes: [big_cnn, {recipe: vgg16, name: vgg_small, set: {train.epochs: 5}}]
    seeds: 3                                  # 0, 1, 2; or a list: [0, 5]
    set: {data.val: 0.25}                     # for all recipes
    grid: {optim.lr: [1e-3, 3e-4]}            # every combination
    search: {optim.lr: log:1e-5:1e-2}         # or a range LOW:HIGH, or a list of choices
    samples: 20                               # drawn from `search`
    searcher: random                          # or optuna
    schedule: none                            # or asha: stops trials of one recipe that fall behind
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from animalclf import config as configuration
from animalclf.config import flatten, nearest
from animalclf.config.families import family_name
from animalclf.config.parsing import Tree
from animalclf.errors import UserError
from animalclf.tuning.search_space import draw_samples, parse_range
from animalclf.tuning.spec import ComparisonSpec, Trial, override, vary
from animalclf.tuning.spec_checks import check_schedule, check_settings, check_trials
from animalclf.utils.text import printable

KEYS = ("recipes", "seeds", "set", "grid", "search", "samples", "searcher", "schedule")
RECIPE_KEYS = ("recipe", "name", "set")
SEARCHERS, SCHEDULES = ("random", "optuna"), ("none", "asha")


def build_spec(tree: Mapping[str, Any]) -> ComparisonSpec:
    """The comparison that a mapping describes (see the top of the module).

    Raises UserError for unknown recipes and keys, a repeated trial, an empty grid or search, and trials that cannot be
    compared.
    """
    _check_keys(tree, KEYS, "comparison")
    common, grid, search = _mapping(tree, "set"), _mapping(tree, "grid"), _mapping(tree, "search")
    seeds = _seeds(1 if tree.get("seeds") is None else tree["seeds"])
    searcher = _choice("searcher", tree.get("searcher") or "random", SEARCHERS)
    schedule = _choice("schedule", tree.get("schedule") or "none", SCHEDULES)
    samples = tree.get("samples") or 0
    if not isinstance(samples, int) or samples < 0:
        raise UserError(f"samples: {samples!r} is not a number of trials")
    recipes = _as_list(tree.get("recipes"))
    if not recipes:
        raise UserError(
            "no recipes to compare; name some: --recipes big_cnn,vgg16, or `recipes:` in the comparison file"
        )
    bases = [_base_trial(recipe, common) for recipe in recipes]
    settings = flatten(configuration.to_dict(bases[0].config))
    ranges = tuple(parse_range(key, value, settings) for key, value in search.items())
    check_settings(common, grid, ranges, samples, searcher)
    steps = [
        dict(zip(grid, step, strict=True))
        for step in itertools.product(*(_grid_values(*item) for item in grid.items()))
    ]
    draws = draw_samples(ranges, samples, seeds[0]) if ranges and searcher == "random" else [{}]
    trials = tuple(
        vary(Trial(base.name, replace(base.config, seed=seed)), {**step, **draw})
        for base, step, draw, seed in itertools.product(bases, steps, draws, seeds)
    )
    explicit = {*common, *grid, *(key for recipe in recipes for key in _recipe_settings(recipe))}
    data_keys = tuple(sorted(key for key in explicit if key.startswith("data.")))
    spec = ComparisonSpec(trials, schedule, searcher, ranges if searcher == "optuna" else (), samples, data_keys)
    check_trials(spec)
    check_schedule(spec)
    return spec


def comparison_tree(file: str = "", *, set: Mapping[str, Any] | None = None, **values: Any) -> Tree:
    """The mapping for `build_spec`: the comparison `file` (a path or URL). Non-empty `values` replace the file's, and
    `set` overrides keys of the file's `set`. Raises UserError for a file that cannot be parsed."""
    tree = configuration.read(file, "comparison file") if file else {}
    if set:
        values["set"] = {**_mapping(tree, "set"), **configuration.flatten_overrides(set)}
    return tree | {key: value for key, value in values.items() if value}


def _base_trial(recipe: Any, common: Mapping[str, Any]) -> Trial:
    """A recipe of the comparison with its settings; its own override those for all recipes."""
    if isinstance(recipe, Mapping):
        _check_keys(recipe, RECIPE_KEYS, "recipe")
    name, label = (recipe.get("recipe"), recipe.get("name")) if isinstance(recipe, Mapping) else (recipe, None)
    if not isinstance(name, str):
        raise UserError(
            f"recipes: {recipe!r} is neither the name of a recipe nor {{recipe: NAME, name: LABEL, set: {{...}}}}"
        )
    config = override(configuration.load(name), {**common, **_recipe_settings(recipe)})
    label = family_name(str(label or config.name), config.model.name)
    return Trial(label, replace(config, name=label))


def _recipe_settings(recipe: Any) -> Mapping[str, Any]:
    return _mapping(recipe, "set") if isinstance(recipe, Mapping) else {}


def _check_keys(tree: Mapping[str, Any], keys: Sequence[str], place: str) -> None:
    for key in tree:
        if key not in keys:
            raise UserError(f"unknown key {key!r} in the {place}{nearest(str(key), keys)}; there are {', '.join(keys)}")


def _mapping(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = tree.get(key) or {}
    if not isinstance(value, Mapping):
        raise UserError(f"{key}: must map configuration keys to values, not be {value!r}")
    return configuration.flatten_overrides(value)


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value in (None, "") else [value]


def _grid_values(key: str, values: Any) -> list[Any]:
    listed = _as_list(values)
    if all(value in (None, "") for value in listed):
        raise UserError(f"grid {printable(key)}: has no values; write for example {printable(key)}=1e-3,3e-4")
    return listed


def _seeds(value: Any) -> list[int]:
    """The list of seeds, from their number or a list."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    seeds = list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value
    valid = isinstance(seeds, list | tuple) and seeds and all(isinstance(seed, int) and seed >= 0 for seed in seeds)
    if not valid:
        raise UserError(f"seeds: {value!r} is neither a number of seeds (at least 1) nor a list of seeds such as 0,5")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds: {', '.join(map(str, seeds))} repeats a seed; leave it out")
    return list(seeds)


def _choice(key: str, value: Any, choices: Sequence[str]) -> str:
    if value not in choices:
        raise UserError(f"{key}: {value!r} is not one of {', '.join(choices)}{nearest(str(value), choices)}")
    return str(value)
