"""The specification of a comparison: recipes, seeds, grid and search become a list of trials. Plain Python.

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
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from animalclf import config as configuration
from animalclf.config import Config, flat, nearest, put
from animalclf.config.parsing import Tree
from animalclf.errors import UserError
from animalclf.metrics import METRICS
from animalclf.tuning.search_space import SearchRange, draw_samples, parse_range

KEYS = ("recipes", "seeds", "set", "grid", "search", "samples", "searcher", "schedule")
RECIPE_KEYS = ("recipe", "name", "set")
SEARCHERS, SCHEDULES = ("random", "optuna"), ("none", "asha")
FREE_DATA_KEYS = ("data.stored_size", "data.store")  # the only data settings in which trials may differ


@dataclass(frozen=True)
class Trial:
    """One training. `name` is its label, the same for all seeds: the recipe, and its values of grid and search."""

    name: str
    config: Config

    @property
    def slug(self) -> str:
        """The name of the run folder: the label in safe characters, and the seed."""
        return f"{re.sub(r'[^A-Za-z0-9._]+', '-', self.name).strip('-.')}-s{self.config.seed}"


@dataclass(frozen=True)
class ComparisonSpec:
    """A comparison before any work. `trials`: all trials; with searcher optuna the one trial that the search varies."""

    trials: tuple[Trial, ...]
    schedule: str = "none"
    searcher: str = "random"
    search: tuple[SearchRange, ...] = ()
    samples: int = 0
    data_keys: tuple[str, ...] = ()
    """The `data.` keys that are set explicitly, which a prepared set must not contradict."""

    @property
    def searching(self) -> bool:
        """Whether a searcher proposes the trials while others run."""
        return self.searcher == "optuna"

    def trial(self, values: Mapping[str, Any]) -> Trial:
        """The trial of a search with these `values` (key -> value)."""
        rounded = {}
        for search_range in self.search:
            value = values[search_range.key]
            rounded[search_range.key] = value if search_range.choices else search_range.rounded(value)
        return vary(self.trials[0], rounded)


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
    settings = flat(configuration.to_dict(bases[0].config))
    ranges = tuple(parse_range(key, value, settings) for key, value in search.items())
    _check_settings(common, grid, ranges, samples, searcher)
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
    _check_trials(spec)
    _check_schedule(spec)
    return spec


def comparison_tree(file: str = "", *, set: Mapping[str, Any] | None = None, **values: Any) -> Tree:
    """The mapping for `build_spec`: the comparison `file` (a path or URL). Non-empty `values` replace the file's, and
    `set` overrides keys of the file's `set`. Raises UserError for a file that cannot be parsed."""
    tree = configuration.read(file, "comparison file") if file else {}
    if set:
        file_set = tree.get("set") or {}
        values["set"] = {**(file_set if isinstance(file_set, dict) else {}), **set}
    return tree | {key: value for key, value in values.items() if value}


def vary(base: Trial, values: Mapping[str, Any]) -> Trial:
    """`base` with `values` in its configuration and its label. Raises UserError for an unknown key or a wrong value."""
    config = override(base.config, values)
    settings = flat(configuration.to_dict(config))
    last_parts = [key.rpartition(".")[2] for key in values]
    labels = [
        f"{last if last_parts.count(last) == 1 else key}={_label(settings[key])}"
        for key, last in zip(values, last_parts, strict=True)
    ]
    name = " ".join([base.name, *labels])
    return Trial(name, replace(config, name=name))


def override(config: Config, values: Mapping[str, Any]) -> Config:
    """`config` with other values at dotted keys. Raises UserError for an unknown key or a wrong value."""
    tree = configuration.to_dict(config)
    for key, value in values.items():
        put(tree, str(key), value, key)
    return configuration.from_dict(tree)


def monitored_metric(config: Config) -> tuple[str, str]:
    """The key of metrics.jsonl that `train.monitor` selects by, and whether its "max" or its "min" is best."""
    return f"val_{config.train.monitor}", "max" if METRICS.get(config.train.monitor).higher_is_better else "min"


# ------------------------------------------------------------------------------------------------------------- parsing


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
    label = str(label or config.name)
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
    return configuration.current_names(value)


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value in (None, "") else [value]


def _grid_values(key: str, values: Any) -> list[Any]:
    listed = _as_list(values)
    if all(value in (None, "") for value in listed):
        raise UserError(f"grid {key}: has no values; write for example {key}=1e-3,3e-4")
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


def _label(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_label, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# -------------------------------------------------------------------------------------------------------------- checks


def _check_settings(
    common: Iterable[str], grid: Iterable[str], ranges: Sequence[SearchRange], samples: int, searcher: str
) -> None:
    """Raises UserError if set, grid, search and samples contradict each other."""
    common, grid, searched = set(common), set(grid), {search_range.key for search_range in ranges}
    for key in ("seed", "name"):
        if key in common | grid | searched:
            raise UserError(
                f"{key}: cannot be set in a comparison; use `seeds` for the seeds, and `name` of a recipe for its label"
            )
    repeated = sorted((common & grid) | (searched & (common | grid)))
    if repeated:
        raise UserError(f"{repeated[0]}: has a value in more than one of set, grid and search; leave it in one of them")
    example = "for example --search optim.lr=log:1e-5:1e-2"
    if searched and not samples:
        raise UserError("samples: missing; give the number of trials to draw from search, for example --samples 20")
    if samples and not searched:
        raise UserError(f"samples: there are no search ranges to draw from; add some, {example}")
    if searcher == "optuna" and not searched:
        raise UserError(f"searcher optuna: there are no search ranges; add some, {example}")


def _check_trials(spec: ComparisonSpec) -> None:
    """Raises UserError for a repeated trial and for trials that are not comparable."""
    by_slug: dict[str, Trial] = {}
    by_settings: dict[str, Trial] = {}
    for trial in spec.trials:
        if by_slug.setdefault(trial.slug, trial) is not trial:
            seed = trial.config.seed
            raise UserError(
                f"trial {trial.name!r} with seed {seed} is repeated; leave it out, or give it another `name`"
            )
    for trial in spec.trials:
        earlier = by_settings.setdefault(repr(replace(trial.config, name="")), trial)
        if earlier is not trial:
            names = f"{earlier.name!r} and {trial.name!r}"
            raise UserError(f"{names} are the same trial under two names; leave one out, or change a setting")
    first = spec.trials[0]
    for trial in spec.trials:
        names = f"{first.name} and {trial.name}"
        changed = {line.partition(":")[0]: line for line in configuration.differences(first.config, trial.config)}
        different = [changed[key] for key in changed if key.startswith("data.") and key not in FREE_DATA_KEYS]
        if different:
            raise UserError(
                f"{names} differ in {different[0]}; trials are validated on the same images: use `set` for all"
            )
        if "train.monitor" in changed:
            raise UserError(
                f"{names} differ in {changed['train.monitor']}; a comparison needs one metric: use `set` for all"
            )


def _check_schedule(spec: ComparisonSpec) -> None:
    """Raises UserError for a schedule or a searcher that does not fit the trials."""
    if spec.schedule == "asha":
        models = sorted({f"{trial.config.model.name} at {trial.config.model.input_size} px" for trial in spec.trials})
        if len(models) > 1:
            raise UserError(
                f"schedule asha: the trials have different models ({', '.join(models)}), and ASHA would always stop a "
                "model that starts slowly; compare different models with schedule none"
            )
        lengths = sorted({trial.config.train.epochs for trial in spec.trials})
        if len(lengths) > 1:
            listed = ", ".join(map(str, lengths))
            raise UserError(
                f"schedule asha: the trials have different numbers of epochs ({listed}); use one train.epochs for all"
            )
    if spec.searching and len(spec.trials) > 1:
        raise UserError(
            "searcher optuna: takes one recipe, one seed and no grid; compare its best trials over seeds afterwards"
        )
    for search_range in spec.search:
        if search_range.key.startswith("data."):
            raise UserError(
                f"searcher optuna: {search_range.key} belongs to the prepared images, which exist before the search; "
                "use searcher random"
            )
