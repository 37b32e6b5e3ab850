"""A training: its history, result, environment and progress events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from animalclf.rows.base import OMIT_NONE, Row
from animalclf.rows.data_problems import DataProblems
from animalclf.rows.evaluation import Evaluation


@dataclass(frozen=True)
class HeadRow(Row):
    """A fitted head: chosen by the log loss of inner folds of the training images, without the validation images."""

    kind: str
    settings: dict[str, float]
    temperature: float
    log_loss: float
    """Of the training images, each by a head that was fitted without its fold."""
    numbers: int | None = field(default=None, metadata=OMIT_NONE)
    """In the fitted head: its parameters; None in runs of earlier versions."""


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
    """Of input tasks, in parallel with the steps, as `augment_seconds`."""
    augment_seconds: float = 0.0
    wait_seconds: float = 0.0
    """Waiting for data; with `copy_seconds` and `step_seconds` this is `train_seconds`."""
    copy_seconds: float = field(default=0.0, metadata={"old_keys": ["handover_seconds"]})
    """Host-to-device copies, and augmentation on the device."""
    step_seconds: float = 0.0
    val_rows: int | None = field(default=None, metadata=OMIT_NONE)
    """None without a validation split."""
    val: dict[str, float] = field(default_factory=dict, metadata={"prefix": "val_"})
    """Validation metrics by name (`loss`, `accuracy`, ...); empty without a validation split."""
    heads: list[HeadRow] | None = field(default=None, metadata={"row": HeadRow, **OMIT_NONE})
    """Of a run with fitted heads, whose training loss and accuracy are those of the inner folds."""
    validate_seconds: float = 0.0
    seconds: float = 0.0
    """The whole epoch, with the checkpoint before it and, in the first epoch, the frozen features."""
    checkpoint_seconds: float = field(default=0.0, metadata={"old_keys": ["keep_seconds"]})
    """Checkpointing and reporting of the epoch before."""
    features_seconds: float | None = field(default=None, metadata=OMIT_NONE)
    """Features of a frozen base, in the first epoch after a start that computed them."""


@dataclass(frozen=True)
class TimeSpent(Row):
    """Seconds of all epochs, by activity. `read` and `augment` are input tasks, in parallel with the steps."""

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
class FoldRow(Row):
    """A fold of a cross-validation: `row.metrics["accuracy"]` is of its images, by the model that was trained without
    them."""

    fold: int
    """Counted from 1."""
    rows: int
    """Images."""
    metrics: dict[str, float] = field(default_factory=dict, metadata={"prefix": ""})


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
    heads: list[HeadRow] | None = field(default=None, metadata={"row": HeadRow, **OMIT_NONE})
    """The fitted heads of a run that has some. In such a run the validation images choose nothing."""
    temperature: float | None = field(default=None, metadata=OMIT_NONE)
    """Divides the logits of the model when it predicts (None, of an older version: 1). The probabilities of `val` are
    cross-fitted: each fold has the temperature of the others."""
    selected_on: str | None = field(default=None, metadata=OMIT_NONE)
    """`val` if the epoch was selected on the validation images, whose metrics are then optimistic; else empty. None: of
    an older version."""
    folds: list[FoldRow] | None = field(default=None, metadata={"row": FoldRow, **OMIT_NONE})
    """Of a training with `train.folds`: `val` is then out of fold, of all training and validation images, and the model
    is trained on all of them."""
    calibration_error: float | None = field(default=None, metadata=OMIT_NONE)
    """Of `val`, whose temperature is cross-fitted."""
    val: Evaluation | None = field(default=None, metadata={"row": Evaluation, **OMIT_NONE})
    """Evaluation of the best epoch on the validation split; None without one."""
    test: Evaluation | None = field(default=None, metadata={"row": Evaluation, **OMIT_NONE})
    startup: dict[str, float] | None = field(default=None, metadata=OMIT_NONE)
    """Seconds of each startup phase, and `total`; in the result of the command, not in the file."""
    problems: DataProblems | None = field(default=None, metadata={"row": DataProblems, **OMIT_NONE})
    """Of the images; in the result of the command, not in the file."""
    metrics: dict[str, float] = field(default_factory=dict, metadata={"prefix": ""})
    """The main metrics of the validation split (without one: of the test split) by name."""

    @property
    def selected(self) -> bool:
        """Whether the metrics of `val` are of images on which the epoch was selected."""
        if self.selected_on is None:  # older versions select if there is a choice
            return bool(self.val and self.epochs > 1 and not self.heads)
        return self.selected_on == "val"

    @property
    def measured(self) -> str:
        """The images and the way in which the metrics of `val` were measured, for tables."""
        if self.folds:
            return f"out of fold, {len(self.folds)} folds"
        return "validation, which selected the epoch" if self.selected else "validation"


@dataclass(frozen=True)
class Environment(Row):
    """The content of environment.json: versions, hardware and data of a training."""

    command: str = ""
    python: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    """Package name -> version."""
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
    """Source of its images."""
    data_fingerprint: str = ""
    workers: str | int = ""
    gpu: bool = False


@dataclass(frozen=True)
class PhaseProgress(Row):
    """Progress of a pass over a split."""

    phase: Literal["features", "heads", "train", "val", "test"]
    """heads: fitted heads, each an equal part of the images."""
    done: int
    """Images over all ranks."""
    total: int = field(metadata={"old_keys": ["of"]})
    seconds: float
    """Since the pass began."""
    epoch: int | None = field(default=None, metadata=OMIT_NONE)
    """Counted from 1."""
    epochs: int | None = field(default=None, metadata=OMIT_NONE)
    part: str | None = field(default=None, metadata=OMIT_NONE)
    """Of a training with folds: `fold 2 of 4`, `all images`."""


@dataclass(frozen=True)
class StartupEvent(Row):
    """The end of a phase of the start. After a failure the workers start again, and report it again."""

    phase: Literal["images", "ray", "workers"]
    workers: int | None = field(default=None, metadata=OMIT_NONE)
    """Their number, at the end of the phase `workers`."""


@dataclass(frozen=True)
class EpochEnd(Row):
    """An epoch whose row and checkpoint are written, so that a resume continues after it."""

    row: EpochRow = field(metadata={"row": EpochRow})
    part: str | None = field(default=None, metadata=OMIT_NONE)
    """As of PhaseProgress."""


ProgressEvent = PhaseProgress | StartupEvent | EpochEnd
"""What a training reports while it runs. Rank 0 posts it to the process of the command, which shows it."""
