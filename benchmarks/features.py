"""How good fitted heads on frozen features are: nested cross-validation over all images of a labelled folder.

    python -m benchmarks.features --data animals10_sample --views squash:288 keep:352 keep:384

Outer folds measure; settings and temperatures come from inner folds of the training images, as in `train.heads`. A view
is data.resize and data.stored_size. Duplicates are in one fold.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

import animalclf
from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.data.prepared_set import Prepared
from animalclf.data.sampler import sampling_plan
from animalclf.features.fitting import fit_head
from animalclf.features.folds import deal_folds
from animalclf.features.heads import TrainingSet
from animalclf.metrics import from_probabilities
from animalclf.models import build
from animalclf.models.fitted_heads import module_of
from animalclf.runs import Run
from animalclf.training.context import TrainContext
from animalclf.training.distributed import RankContext
from animalclf.training.fitted_heads import INNER_FOLDS, image_weights
from animalclf.training.frozen_features import feature_loader
from animalclf.utils.canvas import sides_on_canvas
from benchmarks.common import argument_parser, write_json

OUTER_FOLDS = 4
METRICS = ("balanced_accuracy", "loss", "ece")


@dataclass(frozen=True)
class Result:
    """Metrics of each split seed, and CPU seconds of all features and of all fits."""

    view: str
    metrics: dict[str, list[float]]
    features_seconds: float
    fit_seconds: float


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", required=True, help="labelled images")
    parser.add_argument(
        "--model", default="efficientnet_lite2", help="any model.name with a base for images of any shape"
    )
    parser.add_argument("--weights", default="embedded", help="as model.weights")
    parser.add_argument("--views", nargs="+", default=["keep:384"], help="RESIZE:STORED_SIZE, as squash:288")
    parser.add_argument("--heads", default="logistic,kernel_ridge", help="as train.heads, with commas")
    parser.add_argument("--pool", default="auto", help="as model.pool")
    parser.add_argument("--prepared", help="folder that stores the prepared sets and their features for the next call")
    parser.add_argument("--seeds", type=int, default=3, help="split seeds")
    arguments = parser.parse_args()
    results = [measure(view, arguments) for view in arguments.views]
    table = Table(title=f"{arguments.model}, {arguments.heads}, {arguments.seeds} split seeds", title_justify="left")
    for heading in (
        "view",
        "balanced accuracy",
        "std over seeds",
        "log loss",
        "calibration error",
        "features, CPU s",
        "fits, CPU s",
    ):
        table.add_column(heading)
    for result in results:
        accuracy, loss, error = (np.array(result.metrics[name]) for name in METRICS)
        cells = [f"{accuracy.mean():.4f}", f"{accuracy.std():.4f}", f"{loss.mean():.3f}", f"{error.mean():.3f}"]
        table.add_row(result.view, *cells, f"{result.features_seconds:.1f}", f"{result.fit_seconds:.1f}")
    Console(width=120).print(table)
    write_json(arguments.json, {result.view: asdict(result) for result in results})


def measure(view: str, arguments: argparse.Namespace) -> Result:
    """Nested cross-validation on one view of the images."""
    data, folder, heads = arguments.data, arguments.prepared, arguments.heads.split(",")
    resize, size = view.split(":")
    input_size = int(size) if resize == "squash" else min(sides_on_canvas(1, 1, int(size)))
    settings = {"data.resize": resize, "data.stored_size": int(size), "model.input_size": input_size}
    config = configuration.load("quick", settings | _model(arguments))
    with tempfile.TemporaryDirectory() as temporary:
        name = "-".join([os.path.basename(data.rstrip("/")), resize, size])
        prepared = animalclf.prepare(data, os.path.join(folder or temporary, name), recipe="quick", set=settings)
        started = time.process_time()
        features = all_features(config, prepared)
    fitting = time.process_time()
    rows = np.flatnonzero(prepared.manifest["status"] == "ok")
    labels, groups = prepared.labels[rows], prepared.manifest["group"].to_numpy(np.int64)[rows]
    metrics: dict[str, list[float]] = {name: [] for name in METRICS}
    for seed in range(arguments.seeds):
        evaluation = from_probabilities(
            out_of_fold(features[rows], labels, groups, heads, seed), labels, prepared.classes
        )
        for name in METRICS:
            metrics[name].append(evaluation[name])
    return Result(view, metrics, fitting - started, time.process_time() - fitting)


def _model(arguments: argparse.Namespace) -> dict[str, object]:
    return {"model.name": arguments.model, "model.weights": arguments.weights, "model.pool": arguments.pool}


def all_features(config: Config, prepared: Prepared) -> np.ndarray:
    """Features float64 (manifest rows, F), from the prepared set's cache if they are there; zeros for unreadable
    images."""
    plan, images, ranks = sampling_plan(prepared, config), load_images(prepared), RankContext()
    rows = np.flatnonzero(prepared.manifest["status"] == "ok")
    context = TrainContext(
        config,
        prepared,
        replace(plan, rows={"train": rows, "val": rows[:0]}),
        Run(prepared.root),
        ranks,
        lambda plan, passes: MemoryLoader(plan, images),
        lambda event: None,
    )
    model = build(config.model, len(prepared.classes), keep_shape=config.keeps_shape)
    loader = feature_loader(context, model.to(memory_format=torch.channels_last))
    features = np.zeros((len(prepared.manifest), int(np.prod(loader.features.shape[1:]))))
    features[rows] = loader.features[loader.position[rows]].reshape(len(rows), -1)
    return features


def out_of_fold(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, heads: list[str], seed: int
) -> np.ndarray:
    """Class probabilities float (N, C) of each image by a model that is fitted without its outer fold."""
    classes = int(labels.max()) + 1
    folds, probabilities = deal_folds(labels, groups, OUTER_FOLDS, seed), np.zeros((len(labels), classes), np.float32)
    for fold in range(OUTER_FOLDS):
        held_out = folds == fold
        inner = deal_folds(labels[~held_out], groups[~held_out], INNER_FOLDS, seed)
        predict = fitted(features[~held_out], labels[~held_out], inner, heads, classes)
        probabilities[held_out] = predict(features[held_out])
    return probabilities


def fitted(
    features: np.ndarray, labels: np.ndarray, folds: np.ndarray, heads: list[str], classes: int, balance: str = "none"
) -> Callable[[np.ndarray], np.ndarray]:
    """Heads fitted on features float (N, F) with inner `folds` int64 (N,): a function from features float (M, F) to
    probabilities float32 (M, classes). `balance`: as train.balance."""
    present, own = np.unique(labels, return_inverse=True)
    training = TrainingSet(features, own, image_weights(own, balance), len(present))
    with threadpool_limits(torch.get_num_threads()):
        module = module_of([fit_head(kind, training, folds) for kind in heads], present, classes)
    return lambda others: module(torch.tensor(others, dtype=torch.float32)).exp().numpy()


def features_of_quick(data: str, folder: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the readable images of `data`: features float64 (N, F) of the recipe `quick`, class numbers int64 (N,) and
    groups of duplicates int64 (N,). `folder` stores the prepared set and its features."""
    with tempfile.TemporaryDirectory() as temporary:
        out = os.path.join(folder or temporary, os.path.basename(data.rstrip("/")))
        prepared = animalclf.prepare(data, out, recipe="quick")
        features = all_features(configuration.load("quick"), prepared)
    rows = np.flatnonzero(prepared.manifest["status"] == "ok")
    return features[rows], prepared.labels[rows], prepared.manifest["group"].to_numpy(np.int64)[rows]


if __name__ == "__main__":
    main()
