"""The leaderboard, and the results of `ensemble` and `report`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from animalclf.rows.base import METRIC_TITLES, OMIT_NONE, Row, html_table, value_text
from animalclf.rows.prediction import EnsembleResult
from animalclf.utils.text import count_text


@dataclass(frozen=True, kw_only=True)
class Spread(Row):
    """A value over the seeds of a recipe: mean, standard deviation (n - 1; None for one seed) and interval."""

    mean: float
    std: float | None
    low: float
    """[low, high]: the 95 % interval of the mean; of epochs the minimum and the maximum."""
    high: float
    values: list[float]
    """In the order of the seeds."""


@dataclass(frozen=True, kw_only=True)
class LeaderboardRow(Row):
    """A recipe or an ensemble on a leaderboard; `row["accuracy"]` is one of its metrics. Costs are means over the
    seeds; an ensemble's are the sums of its members', and it has no seeds."""

    recipe: str
    kind: Literal["model", "ensemble"]
    seeds: list[int]
    runs: list[str]
    metrics: dict[str, Spread] = field(metadata={"prefix": "", "row": Spread})
    """Each headline metric by its key."""
    best_epoch: Spread | None = field(metadata={"row": Spread})
    images_per_s: float | None = field(metadata={"old_keys": ["pictures_per_s"]})
    """In training; with `features_seconds` the head's alone, not comparable with those of other rows."""
    seconds_to_best: float
    """Epochs up to the best one, with validation and the features of a frozen base."""
    device_seconds_to_best: float
    """`seconds_to_best` times the workers."""
    parameters: int
    trainable: int
    measured: str | None = field(default=None, metadata=OMIT_NONE)
    """The images and the way in which the metrics were measured; see TrainingResult.measured. None: of an older
    version."""
    features_seconds: float | None = field(default=None, metadata=OMIT_NONE)
    """Of `seconds_to_best`, for the features of a frozen base: the first run computes them, later ones read them. None:
    the model trains on images."""

    def __getitem__(self, metric: str) -> Spread:
        return self.metrics[metric]


@dataclass(frozen=True, kw_only=True)
class LeaderboardPair(Row):
    """The test of a difference in balanced accuracy; see metrics/significance.py."""

    better: str = field(metadata={"old_keys": ["a"]})
    worse: str = field(metadata={"old_keys": ["b"]})
    difference: float
    low: float
    """[low, high] is the 95 % interval of the difference."""
    high: float
    p_alone: float
    """Not corrected for the number of pairs."""
    p: float
    """Corrected by Holm's method."""
    significant: bool = field(metadata={"old_keys": ["real"]})


@dataclass(frozen=True, kw_only=True)
class Leaderboard(Row):
    """Finished runs grouped by recipe, and ensembles, the best first; every two of them are a pair."""

    images: int = field(metadata={"old_keys": ["pictures"]})
    classes: list[str]
    rows: list[LeaderboardRow] = field(metadata={"row": LeaderboardRow})
    pairs: list[LeaderboardPair] = field(metadata={"row": LeaderboardPair})

    def __repr__(self) -> str:
        """The recipes, the best first, each with its first metric."""
        means = [(row.recipe, next(iter(row.metrics.items()))) for row in self.rows]
        recipes = [f"{recipe} {key}={spread.mean:.4g}" for recipe, (key, spread) in means]
        return f"Leaderboard({count_text(self.images, 'image')}: {'; '.join(recipes)})"

    def _repr_html_(self) -> str:
        """For notebooks: a line per recipe, with mean and 95 % interval of each metric."""
        keys = self.rows[0].metrics if self.rows else ()
        headings = ("recipe", "seeds", *(METRIC_TITLES.get(key, key) for key in keys))
        lines = []
        for row in self.rows:
            cells = [value_text(spread.mean, (spread.low, spread.high)) for spread in row.metrics.values()]
            lines.append((row.recipe, len(row.seeds) or "", *cells))
        return html_table(headings, lines)


@dataclass(frozen=True, kw_only=True)
class EnsemblesResult(Row):
    """What `ensemble` returns: one ensemble per method, and the leaderboard of the ensembles and their members."""

    ensembles: list[EnsembleResult] = field(metadata={"row": EnsembleResult})
    leaderboard: Leaderboard = field(metadata={"row": Leaderboard})

    def __repr__(self) -> str:
        return f"EnsemblesResult({self.leaderboard!r})"

    def _repr_html_(self) -> str:
        return self.leaderboard._repr_html_()


@dataclass(frozen=True, kw_only=True)
class ReportResult(Row):
    """What `report` returns: the URLs of report.html and of its plots, and the size of the page."""

    report: str
    plots: list[str]
    bytes: int
