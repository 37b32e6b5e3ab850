"""Finished runs side by side on the same validation pictures: what a leaderboard compares and an ensemble mixes. Refuses runs that cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from animalclf import config as configuration
from animalclf.errors import UserError
from animalclf.predictions import class_probabilities
from animalclf.runs import Run


@dataclass(frozen=True, eq=False)
class Validated:
    """What R runs made of the same N validation pictures: `paths`, `labels` int64 (N,), `probabilities` float32 (R, N, C), classes in their order."""

    classes: list[str]
    paths: list[str]
    labels: np.ndarray
    probabilities: np.ndarray


def side_by_side(runs: Sequence[Run]) -> Validated:
    """The validation predictions of finished runs (or ensembles' folders), in the order of the first one's pictures.

    Raises UserError naming the run that is not finished, is given twice, has no validation pictures, other classes (or in another order), other
    validation pictures, or another label for one of them.
    """
    twice = [run.root for number, run in enumerate(runs) if run.root in [other.root for other in runs[:number]]]
    if twice:
        raise UserError(f"{twice[0]}: given twice; name every run once")
    results = [run.result() for run in runs]
    for run, result in zip(runs, results, strict=True):
        if result.val is None:
            raise UserError(
                f"{run.root}: was trained without a validation split, so it cannot be compared; train it with data.val above 0"
            )
        if result.classes != results[0].classes:
            raise UserError(
                f"{run.root}: other classes than {runs[0].root}: {_other_classes(result.classes, results[0].classes)}"
            )
    classes, first = list(results[0].classes), runs[0].predictions("val")
    probabilities = [class_probabilities(first, classes)]
    for run in runs[1:]:
        table = run.predictions("val")
        _same_pictures(run, table, runs[0], first)
        probabilities.append(class_probabilities(table.set_index("path").loc[first["path"]], classes))
    labels = np.array([classes.index(label) for label in first["label"]], np.int64)
    return Validated(classes, first["path"].tolist(), labels, np.stack(probabilities))


def _other_classes(mine: Sequence[str], others: Sequence[str]) -> str:
    here, there = [name for name in mine if name not in others], [name for name in others if name not in mine]
    parts = [f"only here: {', '.join(here)}"] if here else []
    parts += [f"only there: {', '.join(there)}"] if there else []
    return f"{'; '.join(parts) or 'the same names in another order'}; only runs of one set of classes can be set side by side"


def _same_pictures(run: Run, table: pd.DataFrame, other: Run, wanted: pd.DataFrame) -> None:
    mine, theirs = set(table["path"]), set(wanted["path"])
    extra, missing = (
        [path for path in table["path"] if path not in theirs],
        [path for path in wanted["path"] if path not in mine],
    )
    if extra or missing:
        parts = [f"{len(extra):,} of its {len(mine):,} are not among the other's (first {extra[0]})"] if extra else []
        parts += (
            [f"{len(missing):,} of the other's {len(theirs):,} are not among its own (first {missing[0]})"]
            if missing
            else []
        )
        parts += [cause] if (cause := _split_settings(run, other)) else []
        remedy = "train both on one prepared set, with the same data.* settings"
        raise UserError(f"{run.root}: validated on other pictures than {other.root}: {'; '.join(parts)}; {remedy}")
    labels = table.set_index("path")["label"].loc[wanted["path"]].to_numpy()
    wrong = np.flatnonzero(labels != wanted["label"].to_numpy())
    if len(wrong):
        path, label = wanted["path"].iloc[wrong[0]], wanted["label"].iloc[wrong[0]]
        raise UserError(
            f"{run.root}: {path} is labelled {labels[wrong[0]]!r}, but {label!r} in {other.root}; train both on one prepared set"
        )


def _split_settings(run: Run, other: Run) -> str:
    """The data settings in which two runs differ, where both are runs of a model."""
    if not (run.exists() and other.exists()):
        return ""
    return ", ".join(
        line for line in configuration.differences(other.config(), run.config()) if line.startswith("data.")
    )
