"""What a comparison runs: recipes, seeds, grid and search become a list of trials. Plain Python; nothing here trains.

A comparison is described by a mapping (a comparison file, the flags of `animalclf compare`, or the Python API):

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
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from animalclf import config as configuration
from animalclf.config import Config, flat, nearest, put
from animalclf.errors import UserError
from animalclf.metrics import METRICS
from animalclf.tuning.search_space import SearchRange, draw_samples, parse_range

KEYS = ("recipes", "seeds", "set", "grid", "search", "samples", "searcher", "schedule")
RECIPE_KEYS = ("recipe", "name", "set")
SEARCHERS, SCHEDULES = ("random", "optuna"), ("none", "asha")
FREE_DATA_KEYS = ("data.stored_size", "data.store")  # the only data settings in which trials may differ


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
class ComparisonSpec:
    """A comparison before any work. With searcher optuna `trials` holds the one trial that the search varies, else all."""

    trials: tuple[Trial, ...]
    schedule: str = "none"
    searcher: str = "random"
    search: tuple[SearchRange, ...] = ()
    samples: int = 0
    data_keys: tuple[str, ...] = ()
    """The `data.` keys that are set by name, which a prepared set must not contradict."""

    @property
    def searching(self) -> bool:
        """True where the trials are chosen while others run."""
        return self.searcher == "optuna"

    def trial(self, values: Mapping[str, Any]) -> Trial:
        """The trial of a search that tries `values` (key -> value)."""
        rounded = {}
        for search_range in self.search:
            value = values[search_range.key]
            rounded[search_range.key] = value if search_range.choices else search_range.rounded(value)
        return vary(self.trials[0], rounded)


def build_spec(tree: Mapping[str, Any]) -> ComparisonSpec:
    """The comparison that a mapping describes (see above).

    Raises UserError for unknown recipes and keys, a trial that occurs twice, an empty grid or search, and trials that
    cannot be compared.
    """
    _known_keys(tree, KEYS, "comparison")
    common, grid, search = _mapping(tree, "set"), _mapping(tree, "grid"), _mapping(tree, "search")
    seeds = _seeds(tree.get("seeds") or 1)
    searcher = _one_of("searcher", tree.get("searcher") or "random", SEARCHERS)
    schedule = _one_of("schedule", tree.get("schedule") or "none", SCHEDULES)
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
    named = {*common, *grid, *(key for recipe in recipes for key in _own_settings(recipe))}
    data_keys = tuple(sorted(key for key in named if key.startswith("data.")))
    spec = ComparisonSpec(trials, schedule, searcher, ranges if searcher == "optuna" else (), samples, data_keys)
    _check_trials(spec)
    _check_schedule(spec)
    return spec


def comparison_tree(file: str = "", *, set: Mapping[str, Any] | None = None, **values: Any) -> dict[str, Any]:
    """The mapping that `build_spec` takes: a comparison `file` (a path or URL), with the `values` that are not empty instead of its own, and with
    `set` over its `set`. Raises UserError for a file that cannot be parsed."""
    tree = configuration.read(file, "comparison file") if file else {}
    if set:
        own = tree.get("set") or {}
        values["set"] = {**(own if isinstance(own, dict) else {}), **set}
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


# --------------------------------------------------------------------------------------- the values of a comparison


def _base_trial(recipe: Any, common: Mapping[str, Any]) -> Trial:
    """A recipe of the comparison with its settings; its own win over those for all."""
    if isinstance(recipe, Mapping):
        _known_keys(recipe, RECIPE_KEYS, "recipe")
    name, label = (recipe.get("recipe"), recipe.get("name")) if isinstance(recipe, Mapping) else (recipe, None)
    if not isinstance(name, str):
        raise UserError(
            f"recipes: {recipe!r} is neither the name of a recipe nor {{recipe: NAME, name: LABEL, set: {{...}}}}"
        )
    config = override(configuration.load(name), {**common, **_own_settings(recipe)})
    label = str(label or config.name)
    return Trial(label, replace(config, name=label))


def _own_settings(recipe: Any) -> Mapping[str, Any]:
    return _mapping(recipe, "set") if isinstance(recipe, Mapping) else {}


def _known_keys(tree: Mapping[str, Any], keys: Sequence[str], what: str) -> None:
    for key in tree:
        if key not in keys:
            raise UserError(f"unknown key {key!r} in the {what}{nearest(str(key), keys)}; there are {', '.join(keys)}")


def _mapping(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = tree.get(key) or {}
    if not isinstance(value, Mapping):
        raise UserError(f"{key}: a mapping of configuration keys to values, not {value!r}")
    return dict(value)


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value in (None, "") else [value]


def _grid_values(key: str, values: Any) -> list[Any]:
    listed = _as_list(values)
    if all(value in (None, "") for value in listed):
        raise UserError(f"grid {key}: no values; write for example {key}=1e-3,3e-4")
    return listed


def _seeds(given: Any) -> list[int]:
    """The seeds that a number of seeds, or a list of them, stands for."""
    if isinstance(given, str) and given.isdecimal():
        given = int(given)
    seeds = list(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given
    valid = isinstance(seeds, list | tuple) and seeds and all(isinstance(seed, int) and seed >= 0 for seed in seeds)
    if not valid:
        raise UserError(f"seeds: {given!r} is neither a number of seeds from 1 nor a list of whole numbers such as 0,5")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds: {', '.join(map(str, seeds))} names a seed twice")
    return list(seeds)


def _one_of(key: str, value: Any, choices: Sequence[str]) -> str:
    if value not in choices:
        raise UserError(f"{key}: {value!r} is not one of {', '.join(choices)}{nearest(str(value), choices)}")
    return str(value)


def _label(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_label, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------- what would make a comparison void or ambiguous is refused


def _check_settings(
    common: Iterable[str], grid: Iterable[str], ranges: Sequence[SearchRange], samples: int, searcher: str
) -> None:
    """Raises UserError where set, grid, search and samples contradict one another."""
    common, grid, searched = set(common), set(grid), {search_range.key for search_range in ranges}
    for key in ("seed", "name"):
        if key in common | grid | searched:
            raise UserError(
                f"{key}: is not set in a comparison; use seeds for seeds, and `name` of a recipe for its label"
            )
    repeated = sorted((common & grid) | (searched & (common | grid)))
    if repeated:
        raise UserError(f"{repeated[0]}: has a value in more than one of set, grid and search; leave it in one of them")
    example = "for example --search optim.lr=log:1e-5:1e-2"
    if searched and not samples:
        raise UserError("search: how many trials? Give samples, for example --samples 20")
    if samples and not searched:
        raise UserError(f"samples: there is nothing to draw from; give search ranges, {example}")
    if searcher == "optuna" and not searched:
        raise UserError(f"searcher optuna: there is nothing to search; give search ranges, {example}")


def _check_trials(spec: ComparisonSpec) -> None:
    """Raises UserError for a trial that occurs twice and for trials that would not be judged alike."""
    by_slug: dict[str, Trial] = {}
    by_settings: dict[str, Trial] = {}
    for trial in spec.trials:
        if by_slug.setdefault(trial.slug, trial) is not trial:
            seed = trial.config.seed
            raise UserError(
                f"the trial {trial.name!r} with seed {seed} is there twice; leave one out, or give one of them a `name`"
            )
    for trial in spec.trials:
        other = by_settings.setdefault(repr(replace(trial.config, name="")), trial)
        if other is not trial:
            both = f"{other.name!r} and {trial.name!r}"
            raise UserError(f"{both} are the same trial under two names; leave one out, or change a setting")
    first = spec.trials[0]
    for trial in spec.trials:
        both = f"{first.name} and {trial.name}"
        changed = {line.partition(":")[0]: line for line in configuration.differences(first.config, trial.config)}
        different = [changed[key] for key in changed if key.startswith("data.") and key not in FREE_DATA_KEYS]
        if different:
            raise UserError(
                f"{both} differ in {different[0]}; all trials are judged on the same images: use `set` for all of them"
            )
        if "train.monitor" in changed:
            raise UserError(
                f"{both} differ in {changed['train.monitor']}; a comparison needs one measure: use `set` for all"
            )


def _check_schedule(spec: ComparisonSpec) -> None:
    """Raises UserError for a schedule or a searcher that does not suit the trials."""
    if spec.schedule == "asha":
        models = sorted({f"{trial.config.model.name} at {trial.config.model.input_size} px" for trial in spec.trials})
        if len(models) > 1:
            raise UserError(
                f"schedule asha: the trials are of different models ({', '.join(models)}); a model that starts slowly would "
                "always be stopped, however good it ends. Stop early within one model, or compare with schedule none"
            )
        lengths = sorted({trial.config.train.epochs for trial in spec.trials})
        if len(lengths) > 1:
            listed = ", ".join(map(str, lengths))
            raise UserError(
                f"schedule asha: the trials train for different numbers of epochs ({listed}); give them one"
            )
    if spec.searching and len(spec.trials) > 1:
        raise UserError(
            "searcher optuna: searches one recipe with one seed and no grid; compare what it finds over seeds afterwards"
        )
    for search_range in spec.search:
        if search_range.key.startswith("data."):
            raise UserError(
                f"searcher optuna: {search_range.key} is a setting of the prepared images, which exist before the search; use searcher random"
            )
