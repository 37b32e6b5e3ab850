"""The ranges that a hyperparameter search draws from."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from animalclf.config import nearest
from animalclf.errors import UserError
from animalclf.utils.text import printable
from animalclf.utils.yaml_text import parse_list

EXAMPLES = "write for example log:1e-5:1e-2, 0:0.5 or a,b,c"
MAX_DRAWS = 20  # for each sample, on average, until it differs from the earlier ones


@dataclass(frozen=True)
class SearchRange:
    """Values of `key`: one of `choices`, or from `low` to `high`, uniform in the value or (`log`) in its logarithm."""

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False
    choices: tuple[Any, ...] = ()

    def draw(self, generator: random.Random) -> Any:
        """One random value."""
        if self.choices:
            return generator.choice(self.choices)
        if self.log:
            return self.rounded(math.exp(generator.uniform(math.log(self.low), math.log(self.high))))
        return self.rounded(generator.uniform(self.low, self.high))

    def rounded(self, value: float) -> Any:
        """`value` as an integer if the key takes one, else with three significant digits, as in trial labels."""
        return round(value) if self.integer else float(f"{value:.3g}")


def parse_range(key: str, value: Any, settings: Mapping[str, Any]) -> SearchRange:
    """The search range of the configuration key `key` from `value`: `log:1e-5:1e-2`, `0:0.5`, `a,b,c` or a list.

    `settings` maps all dotted keys to values. Raises UserError for an unknown key and a value that is no range.
    """
    if key not in settings:
        raise UserError(f"search: unknown key {printable(key)}{nearest(key, settings)}")
    if isinstance(value, list | tuple) or ":" not in str(value):
        choices = value if isinstance(value, list | tuple) else parse_list(str(value or ""))
        if not choices:
            raise UserError(f"search {key}: nothing to choose from; {EXAMPLES}")
        return SearchRange(key, choices=tuple(choices))
    *scale, low, high = str(value).split(":")
    if scale not in ([], ["log"]):
        raise UserError(f"search {key}: {':'.join(scale)!r} is not a scale; write log:LOW:HIGH or LOW:HIGH")
    integer = isinstance(settings[key], int) and not isinstance(settings[key], bool)
    try:
        parsed = SearchRange(key, float(low), float(high), log=scale == ["log"], integer=integer)
    except ValueError as error:
        raise UserError(f"search {key}: {value!r} is not a range; write log:LOW:HIGH or LOW:HIGH") from error
    if not parsed.low < parsed.high or (parsed.log and parsed.low <= 0):
        above = ", and above 0" if parsed.log else ""
        raise UserError(f"search {key}: {value!r} is an empty range; LOW must be below HIGH{above}")
    return parsed


def draw_samples(ranges: Sequence[SearchRange], samples: int, seed: int) -> list[Mapping[str, Any]]:
    """`samples` different draws (fewer if the ranges have fewer), as key -> value.

    The same seed gives the same draws; a larger number of `samples` begins with them.
    """
    generator = random.Random(seed)
    draws: list[Mapping[str, Any]] = []
    for _ in range(MAX_DRAWS * samples):
        values = {search_range.key: search_range.draw(generator) for search_range in ranges}
        if values not in draws:
            draws.append(values)
        if len(draws) == samples:
            break
    return draws
