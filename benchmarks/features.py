"""How good fitted heads on frozen features are: nested cross-validation over all images of a labelled folder.

    python -m benchmarks.features --data animals10_sample --views squash:288 keep:352 keep:384

Outer folds measure; settings and temperatures come from inner folds of the training images, as in `train.heads`. A view
is data.resize and data.stored_size. Duplicates are in one fold.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

import animalclf
from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data.loader import load_images
from animalclf.data.prepared_set import Prepared
from animalclf.features.fitting import fit_head
from animalclf.features.folds import deal_folds
from animalclf.features.heads import TrainingSet
from animalclf.metrics import from_probabilities
from animalclf.models import build
from animalclf.models.fitted_heads import module_of
from animalclf.training.fitted_heads import INNER_FOLDS
from animalclf.training.loop import autocast, choose_bf16
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
    parser.add_argument("--seeds", type=int, default=3, help="split seeds")
    arguments = parser.parse_args()
    heads = arguments.heads.split(",")
    results = [
        measure(view, arguments.data, arguments.model, arguments.weights, heads, arguments.seeds)
        for view in arguments.views
    ]
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


def measure(view: str, data: str, model: str, weights: str, heads: list[str], seeds: int) -> Result:
    """Nested cross-validation on one view of the images."""
    resize, size = view.split(":")
    input_size = int(size) if resize == "squash" else min(sides_on_canvas(1, 1, int(size)))
    settings = {"data.resize": resize, "data.stored_size": int(size), "model.input_size": input_size}
    config = configuration.load("quick", settings | {"model.name": model, "model.weights": weights})
    with tempfile.TemporaryDirectory() as folder:
        prepared = animalclf.prepare(data, f"{folder}/prepared", recipe="quick", set=settings)
        started = time.process_time()
        features = all_features(config, prepared)
    fitting = time.process_time()
    rows = np.flatnonzero(prepared.manifest["status"] == "ok")
    labels, groups = prepared.labels[rows], prepared.manifest["group"].to_numpy(np.int64)[rows]
    metrics: dict[str, list[float]] = {name: [] for name in METRICS}
    for seed in range(seeds):
        evaluation = from_probabilities(
            out_of_fold(features[rows], labels, groups, heads, seed), labels, prepared.classes
        )
        for name in METRICS:
            metrics[name].append(evaluation[name])
    return Result(view, metrics, fitting - started, time.process_time() - fitting)


def all_features(config: Config, prepared: Prepared) -> np.ndarray:
    """Features float64 (manifest rows, F); zeros for unreadable images."""
    model = build(config.model, len(prepared.classes), keep_shape=config.keeps_shape).eval()
    model = model.to(memory_format=torch.channels_last)
    images, device = load_images(prepared), torch.device("cpu")
    manifest = prepared.manifest[prepared.manifest["status"] == "ok"]
    rows = manifest.sort_values(["height", "width"]).index.to_numpy()  # most batches are of one shape
    features = np.zeros((len(prepared.manifest), 0))
    for start in range(0, len(rows), config.train.batch_size):
        batch = rows[start : start + config.train.batch_size]
        with torch.inference_mode(), autocast(device, choose_bf16(config.train.precision, device)):
            values = model.features(torch.from_numpy(np.stack(images.views(batch)))).float().flatten(1).numpy()
        if not features.shape[1]:
            features = np.zeros((len(prepared.manifest), values.shape[1]))
        features[batch] = values
    return features


def out_of_fold(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, heads: list[str], seed: int
) -> np.ndarray:
    """Class probabilities float (N, C) of each image by a model that is fitted without its outer fold."""
    classes = int(labels.max()) + 1
    folds, probabilities = deal_folds(labels, groups, OUTER_FOLDS, seed), np.zeros((len(labels), classes), np.float32)
    for fold in range(OUTER_FOLDS):
        held_out = folds == fold
        present, own = np.unique(labels[~held_out], return_inverse=True)
        training = TrainingSet(features[~held_out], own, np.ones(len(own)), len(present))
        inner = deal_folds(own, groups[~held_out], INNER_FOLDS, seed)
        with threadpool_limits(torch.get_num_threads()):
            module = module_of([fit_head(kind, training, inner) for kind in heads], present, classes)
        probabilities[held_out] = module(torch.tensor(features[held_out], dtype=torch.float32)).exp().numpy()
    return probabilities


if __name__ == "__main__":
    main()
