"""Rows that cross modules, processes and files: each a dataclass, with the keys of its JSON file.

A field's `metadata` says how it is stored where that is not under its own name (files keep the keys of older versions):
`key`: its JSON key. `omit_none`: left out where it is None. `row`: the row class of its value, or of the items of a list.
`prefix`: it is a dict whose items stand in the row itself, each under prefix + name (metrics, which are registered).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, Self

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
                content |= {item.metadata["prefix"] + name: number for name, number in value.items()}
            elif value is not None or "omit_none" not in item.metadata:
                content[item.metadata.get("key", item.name)] = _plain(value)
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The row from plain data, also of an older version: missing keys get the defaults, unknown ones are ignored (or, if numbers, go to
        the field with their prefix). Raises UserError where a key without a default is missing."""
        items = fields(cls)  # type: ignore[arg-type]
        keys = {item.metadata.get("key", item.name): item for item in items if "prefix" not in item.metadata}
        missing = [key for key, item in keys.items() if key not in content and item.default is item.default_factory is MISSING]
        if missing:
            raise UserError(f"{cls.__name__}: {', '.join(missing)} missing")
        values = {item.name: _nested(item.metadata.get("row"), content[key]) for key, item in keys.items() if key in content}
        for item in items:
            if "prefix" in item.metadata:
                values[item.name] = _prefixed(content, item.metadata["prefix"], keys)
        return cls(**values)


def _prefixed(content: Mapping[str, Any], prefix: str, keys: Collection[str]) -> dict[str, float]:
    """The numbers of `content` under keys that begin with `prefix` and are not among the row's own `keys`, by the rest of their key."""
    numbers = {key: value for key, value in content.items() if key.startswith(prefix) and key not in keys}
    return {key.removeprefix(prefix): value for key, value in numbers.items() if isinstance(value, int | float)}


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
    images_per_s: float = field(default=0.0, metadata={"key": "pictures_per_s"})
    workers: int = 1
    wait_fraction: float = field(default=0.0, metadata={"key": "wait_share"})
    """Fraction of `train_seconds` spent waiting for data."""
    read_seconds: float = 0.0
    """Spent by input tasks beside the steps, as are `augment_seconds`."""
    augment_seconds: float = 0.0
    wait_seconds: float = 0.0
    """Blocked on the input: with `copy_seconds` and `step_seconds` this is `train_seconds`."""
    copy_seconds: float = field(default=0.0, metadata={"key": "handover_seconds"})
    """Host-to-device copies, and augmentation on the device."""
    step_seconds: float = 0.0
    val_rows: int | None = field(default=None, metadata=OMIT_NONE)
    """None without a validation split."""
    val: dict[str, float] = field(default_factory=dict, metadata={"prefix": "val_"})
    """Validation metrics by name (`loss`, `accuracy`, ...); empty without a validation split."""
    validate_seconds: float = 0.0
    seconds: float = 0.0
    """The whole epoch with the checkpoint before it, and in the first epoch with the frozen features."""
    checkpoint_seconds: float = field(default=0.0, metadata={"key": "keep_seconds"})
    """Checkpointing and reporting of the epoch before."""
    features_seconds: float | None = field(default=None, metadata=OMIT_NONE)
    """Features of a frozen base, in the first epoch after a start that computed them."""


@dataclass(frozen=True)
class TrainingResult(Row):
    """The content of result.json: the best epoch, its metrics on validation and test, and the time of the whole training."""

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
    images_per_s: float = field(default=0.0, metadata={"key": "pictures_per_s"})
    """Median over the epochs."""
    time: dict[str, float] = field(default_factory=dict)
    """Seconds of all epochs by what they were spent on: features, read, augment, wait, handover, step, validate, keep."""
    wait_fraction: float = field(default=0.0, metadata={"key": "wait_share"})
    """Fraction of the training passes spent waiting for data."""
    val: dict[str, Any] | None = field(default=None, metadata=OMIT_NONE)
    """Evaluation of the best epoch on the validation split; None without one."""
    test: dict[str, Any] | None = field(default=None, metadata=OMIT_NONE)
    startup: dict[str, float] | None = field(default=None, metadata=OMIT_NONE)
    """Seconds of each part of the start, and `total`; only in the result of the command, not in the file."""
    metrics: dict[str, float] = field(default_factory=dict, metadata={"prefix": ""})
    """The main metrics of the validation split (without one: of the test split) by name."""


@dataclass(frozen=True)
class PhaseProgress(Row):
    """How far a pass is."""

    phase: Literal["features", "train", "val"]
    done: int
    """Images over all ranks."""
    total: int = field(metadata={"key": "of"})
    seconds: float
    """Since the pass began."""
    epoch: int | None = field(default=None, metadata=OMIT_NONE)
    """Counted from 1."""
    epochs: int | None = field(default=None, metadata=OMIT_NONE)


@dataclass(frozen=True)
class Moment(Row):
    """Something that happens once in a start: `pictures ready`, `ray ready`, `workers ready`."""

    moment: str
    workers: int | None = field(default=None, metadata=OMIT_NONE)
    """Given with `workers ready`."""


@dataclass(frozen=True)
class EpochEnd(Row):
    """An epoch whose row and checkpoint are written, so that a resume goes on after it."""

    row: EpochRow = field(metadata={"row": EpochRow})


ProgressEvent = PhaseProgress | Moment | EpochEnd
"""What a training tells while it runs: rank 0 posts it to the driver, which shows it."""
