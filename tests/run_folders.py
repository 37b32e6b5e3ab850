"""Run folders written by code: finished ones with validation probabilities, for leaderboards and ensembles, and those
of untrained models, for evaluation and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers import tiny_config

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data.prepared_set import Prepared
from animalclf.metrics import from_probabilities, main_metrics
from animalclf.models import build
from animalclf.predictions import predictions_table
from animalclf.rows import CrossFitting, EnsembleResult, EpochRow, Evaluation
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.utils import storage

CLASSES = ["ape", "bee", "cow"]
TINY_CLASSES = ["class0", "class1", "class2"]  # of tiny_prepared
PRIOR = [0.5, 0.3, 0.2]
CONFIG = tiny_config(model__input_size=76, data__stored_size=80)


def finished_run(
    root: Path,
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    sets: Sequence[str] = (),
    recipe: str = "vgg16_pooled",
    classes: Sequence[str] = CLASSES,
    paths: Sequence[str] | None = None,
    groups: np.ndarray | None = None,
    **result: Any,
) -> Run:
    """A run folder as training writes it, without checkpoints: three epochs of 10, 11 and 12 s, the second the best.
    `probabilities` float (N, C)."""
    run, config = Run(str(root)), configuration.load(recipe, configuration.parse_sets(sets))
    names = [f"{classes[label]}/{number}.jpg" for number, label in enumerate(labels)] if paths is None else list(paths)
    val = from_probabilities(probabilities, labels, classes, groups)
    run.write_config(config)
    run.write_environment()
    run.write_metrics([EpochRow(number, seconds=9.0 + number) for number in (1, 2, 3)])
    status, names_of_labels = ["ok"] * len(labels), [classes[label] for label in labels]
    run.write_predictions("val", predictions_table(names, classes, probabilities, status, names_of_labels, groups))
    fields = {
        "run": run.root,
        "recipe": config.name,
        "seed": config.seed,
        "classes": list(classes),
        "best_epoch": 2,
        "epochs": 3,
    }
    metrics = {"val": val.to_dict(), "balanced_accuracy": val["balanced_accuracy"]}
    run.write_result({**fields, **metrics, "workers": 2, "images_per_s": 100.0, **result})
    return run


def ensemble_result(run: Run, members: Sequence[Run], name: str = "ensemble mean") -> EnsembleResult:
    """An ensemble of `members` with the validation predictions that `run` has."""
    val = Evaluation.from_dict(run.read_result()["val"])
    return EnsembleResult(
        name=name,
        method="mean",
        members=[member.root for member in members],
        best=members[0].root,
        temperatures=[1.0] * len(members),
        last_temperature=1.0,
        weights=[1 / len(members)] * len(members),
        flips=False,
        cross_fitted=CrossFitting(folds=5, duplicates_together=False),
        classes=val.classes,
        val=val,
        run=run.root,
        metrics=main_metrics(val),
    )


def guesses(
    labels: np.ndarray, accuracy: float, generator: np.random.Generator, classes: int = 3, confidence: float = 0.8
) -> np.ndarray:
    """Probabilities (N, C) of a model with this expected `accuracy` and the same `confidence` for every image."""
    correct = generator.random(len(labels)) < accuracy
    predicted = np.where(correct, labels, (labels + generator.integers(1, classes, len(labels))) % classes)
    probabilities = np.full((len(labels), classes), (1 - confidence) / (classes - 1), np.float32)
    probabilities[np.arange(len(labels)), predicted] = confidence
    return probabilities


def untrained_run_folder(
    root: Path,
    classes: Sequence[str] = TINY_CLASSES,
    config: Config = CONFIG,
    saved: Config | None = None,
    **fields: Any,
) -> str:
    """The root of a run folder as training writes it, with an untrained model.
    `saved`: the configuration in the checkpoint; `fields`: of environment.json."""
    torch.manual_seed(0)
    run, model = Run(str(root)), build(config.model, len(classes), load_weights=False)
    with torch.no_grad():
        list(model.head.parameters())[-2].mul_(100)  # else all probabilities are nearly equal
    run.write_config(config)
    run.write_environment(**fields)
    about = {
        "config": configuration.to_dict(saved or config),
        "classes": list(classes),
        "prior": PRIOR,
        "epoch": 3,
        "metrics": {},
    }
    storage.write_bytes(run.checkpoint("best"), checkpoint.serialize({**about, "model": model.state_dict()}))
    return run.root


def run_with_model(root: Path, prepared: Prepared, wrong: int = 4, config: Config = CONFIG) -> Run:
    """A finished run on `prepared` with an untrained model, whose first `wrong` validation images are misclassified."""
    rows = prepared.rows("val")
    labels = prepared.labels[rows]
    probabilities = np.full((len(rows), 3), 0.01, np.float32)
    probabilities[np.arange(len(rows)), (labels + (np.arange(len(rows)) < wrong)) % 3] = 0.98
    paths = list(prepared.manifest["path"].iloc[rows])
    run = finished_run(root, probabilities, labels, classes=prepared.classes, paths=paths)
    times = {"wait_fraction": 0.01, "seconds": 120.0, "precision": "fp32", "time": {"step": 90.0}}
    run.write_result({**run.read_result(), **times})
    untrained_run_folder(root, prepared.classes, config, prepared=prepared.root, data_fingerprint=prepared.fingerprint)
    return run
