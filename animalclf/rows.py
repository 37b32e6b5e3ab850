"""Rows that cross modules, processes and files: dataclasses whose fields are the keys of their JSON files.

Metadata of a field: `old_keys`: keys of older versions that are read too. `omit_none`: not written where it is None.
`row`: the row class of its value, or of the items of a list. `prefix`: a dict whose items are written as keys of the row
itself, each under prefix + name (metrics, which are registered).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, Self

from markupsafe import Markup

from animalclf.errors import UserError

OMIT_NONE = {"omit_none": True}


class Row:
    """Base of the row dataclasses: to and from plain data (dicts, lists, numbers, text)."""

    def to_dict(self) -> dict[str, Any]:
        """The row as plain data under the keys of its file."""
        content: dict[str, Any] = {}
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if "prefix" in item.metadata:
                content |= {item.metadata["prefix"] + name: _plain(number) for name, number in value.items()}
            elif value is not None or "omit_none" not in item.metadata:
                content[item.name] = _plain(value)
        return content

    def _repr_html_(self) -> str:
        """A small table for notebooks: the fields that hold one number or text, and the metrics, with their intervals where there are any."""
        lines: list[tuple[str, object]] = []
        intervals = getattr(self, "intervals", {})
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if "prefix" in item.metadata:
                lines += [
                    (name, _shown(number, intervals.get(name)))
                    for name, number in value.items()
                    if isinstance(number, int | float)
                ]
            elif isinstance(value, str | int | float):
                lines.append((item.name, _shown(value)))
        return html_table((), lines)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The row from plain data, also of an older version: old keys are read, missing ones get the defaults, unknown
        ones are ignored (or, if numbers, go to the field with their prefix). Raises UserError where a key without a
        default is missing."""
        items = fields(cls)  # type: ignore[arg-type]
        keys = {item.name: _keys(item) for item in items if "prefix" not in item.metadata}
        all_keys = {key for names in keys.values() for key in names}
        values: dict[str, Any] = {}
        missing = []
        for item in items:
            if "prefix" in item.metadata:
                values[item.name] = _prefixed(content, item.metadata["prefix"], all_keys, item.metadata.get("row"))
            elif key := next((key for key in keys[item.name] if key in content), ""):
                values[item.name] = _nested(item.metadata.get("row"), content[key])
            elif item.default is item.default_factory is MISSING:
                missing.append(item.name)
        if missing:
            raise UserError(f"{cls.__name__}: {', '.join(missing)} missing")
        return cls(**values)


def _keys(item: Field[Any]) -> list[str]:
    """The keys under which a field is read; a newer one wins over an older one."""
    return [item.name, *item.metadata.get("old_keys", ())]


def html_table(headings: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """An HTML table; every cell is escaped."""
    head = (
        Markup("<tr>{}</tr>").format(Markup().join(Markup("<th>{}</th>").format(text) for text in headings))
        if headings
        else ""
    )
    body = [
        Markup("<tr>{}</tr>").format(Markup().join(Markup("<td>{}</td>").format(cell) for cell in line))
        for line in lines
    ]
    return str(Markup("<table>{}{}</table>").format(head, Markup().join(body)))


def _shown(value: object, interval: Sequence[float] | None = None) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else "")


def _prefixed(content: Mapping[str, Any], prefix: str, keys: Collection[str], row: type[Row] | None) -> dict[str, Any]:
    """The numbers of `content` (with `row`: the rows) under keys that begin with `prefix` and are not among the row's
    own `keys`, by the rest of their key."""
    others = {
        key.removeprefix(prefix): value for key, value in content.items() if key.startswith(prefix) and key not in keys
    }
    return {
        key: _nested(row, value) for key, value in others.items() if isinstance(value, dict if row else int | float)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Row):
        return value.to_dict()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, dict) else value


def _nested(row: type[Row] | None, value: Any) -> Any:
    if row is None or value is None:
        return value
    return [row.from_dict(item) for item in value] if isinstance(value, list) else row.from_dict(value)


# ----------------------------------------------------------------------------------------------------------- evaluation


@dataclass(frozen=True, kw_only=True)
class PerClass(Row):
    """Metrics of each class, in class order; None where a class is never predicted (precision) or has no rows."""

    precision: list[float | None]
    recall: list[float | None]
    f1: list[float | None]
    support: list[int]


@dataclass(frozen=True, kw_only=True)
class CalibrationBin(Row):
    """A row of a reliability diagram: images of similar confidence, their mean confidence and their accuracy."""

    images: int = field(metadata={"old_keys": ["pictures"]})
    confidence: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Evaluation(Row):
    """The metrics of class probabilities on one labelled set; `evaluation["accuracy"]` is one of them."""

    rows: int
    """Images."""
    metrics: dict[str, float] = field(metadata={"prefix": ""})
    """Every registered metric by its key."""
    per_class: PerClass = field(metadata={"row": PerClass})
    calibration: list[CalibrationBin] = field(metadata={"row": CalibrationBin})
    classes: list[str]
    confusion: list[list[int]]
    """Counts (C, C), rows = true class."""
    intervals: dict[str, list[float]]
    """95 % interval [low, high] of the metrics that have one, by key."""

    def __getitem__(self, metric: str) -> float:
        return self.metrics[metric]


# ------------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class EpochRow(Row):
    """One epoch of a training: a row of metrics.jsonl. Times are seconds of rank 0, counts are over all ranks."""

    epoch: int
    """Counted from 1."""
    lr: float = 0.0
    """Learning rate of the last step."""
    train_loss: float = 0.0
    train_accuracy: float = 0.0
    train_rows: int = 0
    train_seconds: float = 0.0
    images_per_s: float = field(default=0.0, metadata={"old_keys": ["pictures_per_s"]})
    workers: int = 1
    wait_fraction: float = field(default=0.0, metadata={"old_keys": ["wait_share"]})
    """Fraction of `train_seconds` spent waiting for data."""
    read_seconds: float = 0.0
    """Spent by input tasks beside the steps, as are `augment_seconds`."""
    augment_seconds: float = 0.0
    wait_seconds: float = 0.0
    """Blocked on the input: with `copy_seconds` and `step_seconds` this is `train_seconds`."""
    copy_seconds: float = field(default=0.0, metadata={"old_keys": ["handover_seconds"]})
    """Host-to-device copies, and augmentation on the device."""
    step_seconds: float = 0.0
    val_rows: int | None = field(default=None, metadata=OMIT_NONE)
    """None without a validation split."""
    val: dict[str, float] = field(default_factory=dict, metadata={"prefix": "val_"})
    """Validation metrics by name (`loss`, `accuracy`, ...); empty without a validation split."""
    validate_seconds: float = 0.0
    seconds: float = 0.0
    """The whole epoch with the checkpoint before it, and in the first epoch with the frozen features."""
    checkpoint_seconds: float = field(default=0.0, metadata={"old_keys": ["keep_seconds"]})
    """Checkpointing and reporting of the epoch before."""
    features_seconds: float | None = field(default=None, metadata=OMIT_NONE)
    """Features of a frozen base, in the first epoch after a start that computed them."""


@dataclass(frozen=True)
class TimeSpent(Row):
    """Seconds of all epochs by what they were spent on. `read` and `augment` run beside the steps, in input tasks."""

    features: float = 0.0
    """Features of a frozen base."""
    read: float = 0.0
    augment: float = 0.0
    wait: float = 0.0
    """For data."""
    copy: float = field(default=0.0, metadata={"old_keys": ["handover"]})
    """Host-to-device copies, and augmentation on the device."""
    step: float = 0.0
    validate: float = 0.0
    checkpoint: float = field(default=0.0, metadata={"old_keys": ["keep"]})


@dataclass(frozen=True)
class TrainingResult(Row):
    """The content of result.json: the best epoch, its metrics on validation and test, and the time of the whole
    training."""

    run: str
    recipe: str = ""
    seed: int = 0
    epochs: int = 0
    """Finished epochs."""
    best_epoch: int = 0
    """Counted from 1."""
    classes: list[str] = field(default_factory=list)
    workers: int = 1
    precision: str = "fp32"
    rows: dict[str, int] = field(default_factory=dict)
    """Images of each split."""
    seconds: float = 0.0
    """All epochs."""
    seconds_this_time: float = 0.0
    """This process, without the final evaluation: less than `seconds` after a resume."""
    images_per_s: float = field(default=0.0, metadata={"old_keys": ["pictures_per_s"]})
    """Median over the epochs."""
    time: TimeSpent | None = field(default=None, metadata={"row": TimeSpent, **OMIT_NONE})
    wait_fraction: float = field(default=0.0, metadata={"old_keys": ["wait_share"]})
    """Fraction of the training passes spent waiting for data."""
    val: Evaluation | None = field(default=None, metadata={"row": Evaluation, **OMIT_NONE})
    """Evaluation of the best epoch on the validation split; None without one."""
    test: Evaluation | None = field(default=None, metadata={"row": Evaluation, **OMIT_NONE})
    startup: dict[str, float] | None = field(default=None, metadata=OMIT_NONE)
    """Seconds of each startup phase, and `total`; only in the result of the command, not in the file."""
    metrics: dict[str, float] = field(default_factory=dict, metadata={"prefix": ""})
    """The main metrics of the validation split (without one: of the test split) by name."""


@dataclass(frozen=True)
class Environment(Row):
    """The content of environment.json: what a training runs on and what it trains with."""

    command: str = ""
    python: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the packages that matter, by name."""
    platform: str = ""
    host: str = ""
    cpus: int | None = None
    git_commit: str = ""
    """`+changes` at the end: the working tree differs from it. Empty outside a checkout."""
    started: str = ""
    """UTC, ISO 8601."""
    prepared: str = ""
    """Root of the prepared set."""
    data: str = ""
    """Where its images came from."""
    data_fingerprint: str = ""
    workers: str = ""
    gpu: bool = False


@dataclass(frozen=True)
class PhaseProgress(Row):
    """How far a pass is."""

    phase: Literal["features", "train", "val", "test"]
    done: int
    """Images over all ranks."""
    total: int = field(metadata={"old_keys": ["of"]})
    seconds: float
    """Since the pass began."""
    epoch: int | None = field(default=None, metadata=OMIT_NONE)
    """Counted from 1."""
    epochs: int | None = field(default=None, metadata=OMIT_NONE)


@dataclass(frozen=True)
class StartupEvent(Row):
    """The end of a phase of the start. After a failure the workers start again, and report it again."""

    phase: Literal["images", "ray", "workers"]
    workers: int | None = field(default=None, metadata=OMIT_NONE)
    """Their number, at the end of the phase `workers`."""


@dataclass(frozen=True)
class EpochEnd(Row):
    """An epoch whose row and checkpoint are written, so that a resume goes on after it."""

    row: EpochRow = field(metadata={"row": EpochRow})


ProgressEvent = PhaseProgress | StartupEvent | EpochEnd
"""What a training reports while it runs. Rank 0 posts it to the process of the command, which shows it."""


# ------------------------------------------------------------------------------------------- evaluation of other images


@dataclass(frozen=True, kw_only=True)
class Unreadable(Row):
    """An image that cannot be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class EvaluationResult(Evaluation):
    """What `evaluate` returns and writes as evaluate-<name>.json. The metrics leave out what is `unreadable`."""

    run: str
    data: str
    split: str
    """Empty where all images of a folder or table are evaluated."""
    prior: str
    class_priors: dict[str, float] = field(metadata={"old_keys": ["prior_shares"]})
    epoch: int
    images: int = field(metadata={"old_keys": ["pictures"]})
    """The unreadable ones included."""
    unreadable: list[Unreadable] = field(metadata={"row": Unreadable})
    notes: list[str]
    predictions: str
    """URL of the table of class probabilities."""
    seconds: float


# -------------------------------------------------------------------------------------------- predictions and ensembles


@dataclass(frozen=True, kw_only=True)
class PredictionResult(Row):
    """What `predict` returns."""

    run: str
    data: str
    images: int = field(metadata={"old_keys": ["pictures"]})
    ignored: list[str]
    """Files that are no images by their names."""
    unreadable: list[Unreadable] = field(metadata={"row": Unreadable})
    """They have the class priors as their probabilities."""
    prior: str
    class_priors: dict[str, float] = field(metadata={"old_keys": ["prior_shares"]})
    predicted: dict[str, int]
    """Images of each predicted class."""
    seconds: float
    images_per_s: float = field(metadata={"old_keys": ["pictures_per_s"]})
    predictions: str
    """URL of the table of class probabilities."""
    submission: str
    """URL of submission.csv."""


@dataclass(frozen=True, kw_only=True)
class CrossFitting(Row):
    """How an ensemble is cross-fitted: the number of folds, and whether duplicates are known to be in one fold."""

    folds: int
    duplicates_together: bool = field(metadata={"old_keys": ["copies_together"]})


@dataclass(frozen=True, kw_only=True)
class EnsembleResult(Row):
    """An ensemble by one method: the content of its result.json. Run folders are URLs."""

    name: str
    kind: Literal["ensemble"] = "ensemble"
    method: str
    members: list[str]
    best: str
    """The member with the best balanced accuracy."""
    temperatures: list[float]
    """Of each member."""
    last_temperature: float
    """Of the mixture."""
    weights: list[float]
    flips: bool
    cross_fitted: CrossFitting = field(metadata={"row": CrossFitting})
    classes: list[str]
    val: Evaluation = field(metadata={"row": Evaluation})
    run: str
    metrics: dict[str, float] = field(metadata={"prefix": ""})
    """Those of `val` that a training's result.json has at this place."""
    data: str | None = field(default=None, metadata=OMIT_NONE)
    """This and what follows: of unlabelled images, where they were predicted; see PredictionResult."""
    images: int | None = field(default=None, metadata={"old_keys": ["pictures"], **OMIT_NONE})
    unreadable: list[Unreadable] | None = field(default=None, metadata={"row": Unreadable, **OMIT_NONE})
    prior: str | None = field(default=None, metadata=OMIT_NONE)
    class_priors: dict[str, float] | None = field(default=None, metadata={"old_keys": ["prior_shares"], **OMIT_NONE})
    predicted: dict[str, int] | None = field(default=None, metadata=OMIT_NONE)
    predictions: str | None = field(default=None, metadata=OMIT_NONE)
    submission: str | None = field(default=None, metadata=OMIT_NONE)


@dataclass(frozen=True, kw_only=True)
class VoteResult(Row):
    """A majority vote over submission files: the numbers of rows that are unanimous, tied, or differ from the first
    file."""

    files: list[str]
    submission: str
    rows: int
    unanimous: int
    ties: int
    changed: int


# ---------------------------------------------------------------------------------------------------------- leaderboard


@dataclass(frozen=True, kw_only=True)
class Spread(Row):
    """A value over the seeds of a recipe: its mean and standard deviation (n - 1; None for one seed), and what lies
    around it."""

    mean: float
    std: float | None
    low: float
    """[low, high] is the 95 % interval of the mean; of epochs the smallest and the largest."""
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
    """In training."""
    seconds_to_best: float
    """Epochs up to the best one, with validation and the features of a frozen base."""
    device_seconds_to_best: float
    """`seconds_to_best` times the workers."""
    parameters: int
    trainable: int

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

    def _repr_html_(self) -> str:
        """For notebooks: a line a recipe, with mean and 95 % interval of each metric."""
        metrics = list(self.rows[0].metrics) if self.rows else []
        lines = [
            (
                row.recipe,
                len(row.seeds) or "",
                *(_shown(spread.mean, (spread.low, spread.high)) for spread in row.metrics.values()),
            )
            for row in self.rows
        ]
        return html_table(("recipe", "seeds", *metrics), lines)


# ----------------------------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True)
class TrialProgress:
    """A progress event of a trial's training."""

    trial: str
    """Slug of the trial."""
    event: ProgressEvent


@dataclass(frozen=True)
class TrialFailure:
    """Why a trial failed, in one line."""

    trial: str
    """Slug of the trial."""
    reason: str


TrialState = Literal["waiting", "running", "finished", "stopped", "failed", "interrupted"]


@dataclass(kw_only=True)
class TrialEntry(Row):
    """The state of a trial, which changes: an item of summary.json's `trials`. `stopped`: early, by the schedule."""

    slug: str
    """Name of its run folder."""
    name: str
    seed: int
    run: str
    state: TrialState = "waiting"
    reason: str = ""
    epochs: int = 0
    """Finished epochs."""
    best: float | None = None
    """Best value so far of the metric that the comparison monitors."""
    values: dict[str, Any] | None = field(default=None, metadata=OMIT_NONE)
    """Of the searched keys, where a searcher proposed the trial."""

    def set(self, state: TrialState, reason: str = "") -> None:
        """Change the state, and why it is so."""
        self.state, self.reason = state, reason


@dataclass(frozen=True, kw_only=True)
class ComparedData(Row):
    """The images on which the trials of a comparison train and validate."""

    source: str
    classes: int
    train: int
    val: int
    test: int
    listing_hash: str = field(metadata={"old_keys": ["pictures"]})
    """SHA-256 of paths, labels, splits and contents."""
    prepared: dict[str, dict[str, str]]
    """Prepared sets: stored size -> root and fingerprint."""


@dataclass(frozen=True, kw_only=True)
class ComparisonSummary(Row):
    """The content of a comparison's summary.json."""

    comparison: str
    data: ComparedData = field(metadata={"row": ComparedData})
    monitor: str
    """Key of the metric in metrics.jsonl that ranks the trials."""
    trials: list[TrialEntry] = field(metadata={"row": TrialEntry})
    runs: list[str]
    """Run folders of the finished trials."""


@dataclass(frozen=True, kw_only=True)
class ComparisonResult(Row):
    """What `compare` returns: the leaderboard of the finished trials, their ensembles and the report."""

    comparison: str
    """URL of the comparison folder."""
    leaderboard: Leaderboard = field(metadata={"row": Leaderboard})
    ensembles: list[EnsembleResult] = field(metadata={"row": EnsembleResult})
    trials: list[TrialEntry] = field(metadata={"row": TrialEntry})
    report: str
    """URL of report.html."""

    @property
    def failed(self) -> list[TrialEntry]:
        """The trials that failed, each with its `reason`."""
        return [trial for trial in self.trials if trial.state == "failed"]

    def _repr_html_(self) -> str:
        return f"{self.leaderboard._repr_html_()}{super()._repr_html_()}"


@dataclass(frozen=True, kw_only=True)
class EnsemblesResult(Row):
    """What `ensemble` returns: one ensemble a method, and the leaderboard of their members and them."""

    ensembles: list[EnsembleResult] = field(metadata={"row": EnsembleResult})
    leaderboard: Leaderboard = field(metadata={"row": Leaderboard})

    def _repr_html_(self) -> str:
        return self.leaderboard._repr_html_()


@dataclass(frozen=True, kw_only=True)
class ReportResult(Row):
    """What `report` returns: the URLs of report.html and of its plots, and the size of the page."""

    report: str
    plots: list[str]
    bytes: int
