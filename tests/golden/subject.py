"""What the golden test calls in the package: the only place to change when a module, function or key is renamed.

Each function takes and returns plain data (arrays, numbers, strings, lists, dictionaries) under its own names, so
that the recorded JSON survives a rename.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from helpers import tiny_prepared
from run_folders import finished_run

from animalclf import config as configuration
from animalclf.config import Augment, Data
from animalclf.data.augment import augment_batch, evaluation_view
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.data.sampler import SamplingPlan
from animalclf.duplicates import find
from animalclf.features.folds import deal_folds
from animalclf.inference import mixing, submission
from animalclf.predictions import predictions_table
from animalclf.prepare.split import split
from animalclf.report.leaderboard import leaderboard
from animalclf.report.leaderboard_render import to_json
from animalclf.runs import Run
from animalclf.training.distributed import RankContext
from animalclf.training.train import train

METRIC_NAMES = ("balanced_accuracy", "accuracy", "macro_f1", "loss", "ece")


def sha256(*parts: np.ndarray | str) -> str:
    """Hash of arrays (dtype, shape and content) and texts."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(part.encode())
    return digest.hexdigest()


def split_of(manifest: pd.DataFrame, **settings: Any) -> list[str]:
    """The split of each row (path, label, group, status, sha256, and the split in the table or "")."""
    return [str(name) for name in split(manifest, Data(**settings))]


def duplicates_of(digests: Sequence[str], images: Sequence[np.ndarray]) -> dict[str, list[Any]]:
    """Duplicate groups of images uint8 (H, W, 3) whose files have these hashes: one value per image."""
    signatures = np.stack([find.signature(image) for image in images])
    matches = find.find_duplicates(digests, signatures, lambda row: images[row])
    return {
        "group": matches["group"].tolist(),
        "representative": matches["representative"].tolist(),
        "partner": matches["partner"].tolist(),
        "kind": matches["kind"].tolist(),
        "confidence": [float(value) for value in matches["confidence"].fillna(0)],
        "phash": find.phashes(signatures),
    }


def augmented(
    images: np.ndarray,
    index: np.ndarray,
    settings: Mapping[str, Any],
    seed: int,
    epoch: int,
    size: int,
) -> np.ndarray:
    """Training view uint8 (N, size, size, 3) of stored images; `settings` overrides "no augmentation"."""
    none = {"rotation": 0.0, "shift": 0.0, "zoom": (1.0, 1.0), "flip": False}
    return augment_batch(images, index, Augment(**{**none, **settings}), seed, epoch, size)


def recipe_augmentation(recipe: str) -> dict[str, Any]:
    """The augmentation settings of a recipe."""
    augment = configuration.load(recipe).augment
    return {"rotation": augment.rotation, "shift": augment.shift, "zoom": augment.zoom, "flip": augment.flip}


def plain(images: np.ndarray, size: int) -> np.ndarray:
    """Validation view uint8 (N, size, size, 3) of stored images."""
    return evaluation_view(images, size)


def batch_order(
    labels: np.ndarray,
    rows: Mapping[str, np.ndarray],
    balance: str,
    phase: Any,
    epoch: int,
    rank: int,
    world: int,
) -> list[np.ndarray]:
    """Manifest rows int64 of each batch of this rank."""
    plan = SamplingPlan(dict(rows), labels, 16, balance, Augment(), 76, seed=3)
    return plan.batch_rows(phase, epoch, rank, world)


@contextmanager
def _recorded_losses() -> Iterator[list[float]]:
    """The value of each tensor that `backward` is called on: one loss per step, as long as train.accumulate is 1."""
    losses: list[float] = []
    original = torch.Tensor.backward

    def backward(self: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        losses.append(self.item())
        original(self, *args, **kwargs)

    torch.Tensor.backward = backward  # type: ignore[method-assign]
    try:
        yield losses
    finally:
        torch.Tensor.backward = original  # type: ignore[method-assign]


def training(recipe: str, counts: tuple[int, ...], stored_size: int, sets: Sequence[str]) -> dict[str, Any]:
    """Train a recipe in this process on one thread: the loss of each step, metrics of each epoch and the best one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder, _recorded_losses() as losses:
            config = configuration.load(recipe, configuration.parse_sets(sets))
            prepared = tiny_prepared(Path(folder) / "prepared", counts, size=stored_size)
            images, run = load_images(prepared), Run(f"{folder}/run")
            train(
                config,
                prepared,
                run,
                lambda plan, passes: MemoryLoader(plan, images),
                RankContext(),
            )
            history, result, probabilities = (
                [row.to_dict() for row in run.metrics()],
                run.result(),
                run.predictions("val"),
            )
    finally:
        torch.set_num_threads(threads)
    names = ("train_loss", "val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_f1")
    return {
        "losses": losses,
        "epochs": [{"lr": f"{row['lr']:.9e}", **{name: row[name] for name in names}} for row in history],
        "best_epoch": result.best_epoch,
        "best": {name: result.val[name] for name in METRIC_NAMES},
        "predicted": probabilities["predicted"].tolist(),
    }


def ensemble_of(method: str, probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """What is fitted on probabilities (M, N, C) of M models, and the cross-fitted mixture."""
    fold = deal_folds(labels, groups, mixing.FOLDS, seed=0)
    fitted, mixed = mixing.fit_out_of_fold(method, probabilities, labels, fold)
    return {
        "weights": fitted.weights.tolist(),
        "temperatures": fitted.temperatures.tolist(),
        "last_temperature": fitted.last_temperature,
        "ranking": fitted.ranking.tolist(),
        "folds": sha256(fold),
        "predicted": sha256(mixed.argmax(1)),
        "loss": float(-np.log(mixed[np.arange(len(labels)), labels]).mean()),
    }


def submission_file(paths: Sequence[str], classes: Sequence[str], probabilities: np.ndarray) -> str:
    """The submission file of predictions for these paths."""
    table = predictions_table(paths, classes, probabilities, ["ok"] * len(paths))
    with tempfile.TemporaryDirectory() as folder:
        submission.write(f"{folder}/submission.csv", submission.image_ids(paths), table["predicted"].tolist())
        return Path(folder, "submission.csv").read_bytes().decode()


def leaderboard_of(runs: Sequence[tuple[str, int, np.ndarray]], labels: np.ndarray) -> dict[str, Any]:
    """The leaderboard of finished runs (recipe, seed, validation probabilities), without times, speeds and folders."""
    with tempfile.TemporaryDirectory() as folder:
        finished = [
            finished_run(Path(folder) / f"{recipe}-{seed}", probabilities, labels, recipe=recipe, sets=[f"seed={seed}"])
            for recipe, seed, probabilities in runs
        ]
        board = json.loads(to_json(leaderboard(finished)))
    columns = ("recipe", "kind", "seeds", *METRIC_NAMES, "best_epoch", "parameters", "trainable")
    comparison = ("better", "worse", "difference", "low", "high", "p", "p_alone", "significant")
    return {
        "images": board["images"],
        "classes": board["classes"],
        "rows": [{name: row[name] for name in columns} for row in board["rows"]],
        "pairs": [{name: pair[name] for name in comparison} for pair in board["pairs"]],
    }
