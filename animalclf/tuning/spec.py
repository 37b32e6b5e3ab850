"""A comparison before any work: its trials, and how one trial varies another. Plain Python."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from animalclf import config as configuration
from animalclf.config import Config, flatten, set_key
from animalclf.metrics import METRICS
from animalclf.tuning.search_space import SearchRange

REDUCTION_FACTOR = 3  # ASHA: one of three trials passes a rung, and each rung trains three times as long


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
        rounded_values = {}
        for search_range in self.search:
            value = values[search_range.key]
            rounded_values[search_range.key] = value if search_range.choices else search_range.rounded(value)
        return vary(self.trials[0], rounded_values)


def vary(base: Trial, values: Mapping[str, Any]) -> Trial:
    """`base` with `values` in its configuration and its label. Raises UserError for an unknown key or a wrong value."""
    config = override(base.config, values)
    settings = flatten(configuration.to_dict(config))
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
        set_key(tree, str(key), value)
    return configuration.from_dict(tree)


def monitored_metric(config: Config) -> tuple[str, str]:
    """The key of metrics.jsonl that `train.monitor` selects by, and whether its "max" or its "min" is best."""
    return f"val_{config.train.monitor}", "max" if METRICS.get(config.train.monitor).higher_is_better else "min"


def grace_epochs(epochs: int) -> int:
    """ASHA's first rung: before it no trial of `epochs` epochs stops."""
    return max(1, epochs // REDUCTION_FACTOR**2)


def _label(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_label, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
