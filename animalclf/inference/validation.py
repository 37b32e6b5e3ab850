"""Validation predictions of finished runs on the same images: the input of leaderboards and ensembles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from animalclf import config as configuration
from animalclf.data.run_images import prepared_set_of
from animalclf.errors import UserError
from animalclf.predictions import class_probabilities
from animalclf.runs import Run
from animalclf.utils.text import count_text, name_difference


@dataclass(frozen=True, eq=False)
class ValidationPredictions:
    """Predictions of R runs for the same N validation images: `paths`, `labels` int64 (N,), `probabilities` float32
    (R, N, C), with the classes in the order of `classes`; `groups` int64 (N,): each image's group of duplicates, or
    None if it is unknown."""

    classes: list[str]
    paths: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    groups: np.ndarray | None = None


def validation_predictions(runs: Sequence[Run]) -> ValidationPredictions:
    """The validation predictions of finished runs (or of ensembles' folders), in the order of the first run's images.

    Raises UserError naming the run that is unfinished, is given twice, has no validation images, other classes (or in
    another order), other validation images, or another label for one of them.
    """
    roots = [run.root for run in runs]
    repeated = [root for position, root in enumerate(roots) if root in roots[:position]]
    if repeated:
        raise UserError(f"{repeated[0]}: given twice; name every run once")
    results = [run.result() for run in runs]
    for run, result in zip(runs, results, strict=True):
        if result.val is None:
            raise UserError(
                f"{run.root}: trained without a validation split; train it with data.val above 0 to compare it"
            )
        if result.classes != results[0].classes:
            difference = name_difference(result.classes, results[0].classes, "only here", "only there")
            raise UserError(
                f"{run.root}: other classes than {runs[0].root}: {difference}; compare runs of the same classes"
            )
    classes = list(results[0].classes)
    first = runs[0].predictions("val", classes)
    probabilities = [class_probabilities(first, classes)]
    for run in runs[1:]:
        table = run.predictions("val", classes)
        _check_same_images(run, table, runs[0], first)
        ordered = table if table["path"].equals(first["path"]) else table.set_index("path").loc[first["path"]]
        probabilities.append(class_probabilities(ordered, classes))
    labels = first["label"].map({name: number for number, name in enumerate(classes)}).to_numpy(np.int64)
    groups = duplicate_groups(runs[0], first)
    return ValidationPredictions(classes, first["path"].tolist(), labels, np.stack(probabilities), groups)


def duplicate_groups(run: Run, table: pd.DataFrame) -> np.ndarray | None:
    """The group of duplicates of each image of a table of predictions, int64 (N,): its column or, in run folders of
    older versions, that of the prepared set. None if neither knows it."""
    if "group" in table:
        return table["group"].to_numpy(np.int64)
    try:
        manifest = prepared_set_of(run).manifest
    except UserError:
        return None
    if "group" not in manifest or not set(table["path"]) <= set(manifest["path"]):
        return None
    return manifest.set_index("path")["group"].loc[table["path"]].to_numpy(np.int64)


def _check_same_images(run: Run, table: pd.DataFrame, reference: Run, reference_table: pd.DataFrame) -> None:
    """Raises UserError if two tables of predictions have other images or labels."""
    paths, reference_paths = table["path"], reference_table["path"]
    if paths.equals(reference_paths) and table["label"].equals(reference_table["label"]):
        return
    extra = paths[~paths.isin(reference_paths)].tolist()
    missing = reference_paths[~reference_paths.isin(paths)].tolist()
    if extra or missing:
        parts = [settings] if (settings := _settings(run, reference)) else []  # the cause
        if extra:
            total = count_text(len(paths), "image")
            parts.append(f"{len(extra):,} of its {total} missing from the other's (first {extra[0]})")
        if missing:
            total = count_text(len(reference_paths), "image")
            parts.append(f"{len(missing):,} of the other's {total} missing from its (first {missing[0]})")
        fix = "train both on one prepared set, with the same data.* settings and train.folds"
        raise UserError(f"{run.root}: validated on other images than {reference.root}: {'; '.join(parts)}; {fix}")
    labels = table.set_index("path")["label"].loc[reference_paths].to_numpy()
    differing = np.flatnonzero(labels != reference_table["label"].to_numpy())
    if len(differing):
        row = differing[0]
        path, label = reference_paths.iloc[row], reference_table["label"].iloc[row]
        raise UserError(
            f"{run.root}: {path} is labelled {labels[row]!r}, but {label!r} in {reference.root}; "
            "train both on one prepared set"
        )


def _settings(run: Run, reference: Run) -> str:
    """The settings of images and folds in which two runs differ, if both are runs of a model."""
    if not (run.exists() and reference.exists()):
        return ""
    differences = configuration.differences(reference.config(), run.config())
    return ", ".join(line for line in differences if line.startswith(("data.", "train.folds")))
