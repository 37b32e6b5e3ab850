"""How accurate recipes are, beside what else one could use on the same images, folds and weights.

    python -m benchmarks.accuracy --data animals10_sample --recipes quick vgg16_features --weights vgg16_features.pth

Each recipe is trained by `train --folds 4` for each split seed. Every other method gets the folds of that training:
scikit-learn's logistic regression (`--sklearn`) the features of its base too; fine-tuning by fastai is in
benchmarks/finetune_fastai.py, which reads the table of the folds and writes probabilities (`--probabilities`). Such a
method is compared with the recipe in its name, a recipe with the first one. A finished run in `--out` is not trained
again.
"""

from __future__ import annotations

import argparse
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

import animalclf
from animalclf.data.folds import folded_rows, image_folds
from animalclf.data.prepared_set import open_prepared
from animalclf.metrics import from_probabilities
from animalclf.metrics.significance import difference
from animalclf.predictions import class_probabilities
from animalclf.runs import Run
from benchmarks.common import argument_parser, write_json
from benchmarks.features import all_features

FOLDS = 4
TITLE = "Out-of-fold metrics: mean over split seeds, ± their standard deviation"
METRICS = ("balanced_accuracy", "loss", "ece")
STRENGTHS = np.logspace(-4, 1, 6)  # C of LogisticRegressionCV, on standardised features


@dataclass(frozen=True, eq=False)
class Fold:
    """The images of one split seed, in the order of their paths: labels and groups of duplicates int64 (N,)."""

    table: pd.DataFrame
    """Columns path, label and fold."""
    labels: np.ndarray
    groups: np.ndarray
    classes: list[str]


@dataclass(frozen=True)
class Result:
    """A method on one set: its metrics with each split seed, and its comparison with a recipe."""

    data: str
    method: str
    metrics: dict[str, list[float]]
    interval: tuple[float, float]
    """95 %, of the balanced accuracy over images: the mean of those of the split seeds."""
    gain: float
    """Mean balanced accuracy minus that of `reference`."""
    p: float
    reference: str


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", nargs="+", required=True, help="folders of labelled images")
    parser.add_argument("--recipes", nargs="+", default=["quick"])
    parser.add_argument("--weights", help="model.weights of the recipes whose weights are downloaded")
    parser.add_argument("--seeds", type=int, default=3, help="split seeds")
    parser.add_argument("--out", default="runs/accuracy", help="folder of runs, prepared sets and tables of folds")
    parser.add_argument("--sklearn", action="store_true", help="scikit-learn on the features of the recipes with heads")
    parser.add_argument("--probabilities", help="folder of tables DATA-SEED-METHOD.csv of other methods")
    arguments = parser.parse_args()
    results = [result for data in arguments.data for result in measure(data, arguments)]
    show(results)
    write_json(arguments.json, {f"{result.data}: {result.method}": asdict(result) for result in results})


def measure(data: str, arguments: argparse.Namespace) -> list[Result]:
    """All methods on one set."""
    name = os.path.basename(data.rstrip("/"))
    probabilities: dict[str, list[np.ndarray]] = defaultdict(list)
    folds = []
    for seed in range(arguments.seeds):
        runs = {recipe: train(data, name, recipe, seed, arguments) for recipe in arguments.recipes}
        fold = folds_of(next(iter(runs.values())))
        folds.append(fold)
        fold.table.to_csv(os.path.join(arguments.out, f"folds-{name}-{seed}.csv"), index=False)
        for recipe, run in runs.items():
            table = run.predictions("val").set_index("path").loc[fold.table["path"]]
            probabilities[recipe].append(class_probabilities(table, fold.classes))
        for recipe, run in runs.items():
            if arguments.sklearn and run.config().train.heads:
                for method, each in logistic_regressions(run, fold):
                    probabilities[f"{method} on the features of {recipe}"].append(each)
        for method, each in stored_probabilities(arguments.probabilities, f"{name}-{seed}-", fold):
            probabilities[method].append(each)
    return [
        compare(name, method, reference_of(method, arguments.recipes), probabilities, folds[0])
        for method in probabilities
    ]


def stored_probabilities(folder: str | None, prefix: str, fold: Fold) -> Iterable[tuple[str, np.ndarray]]:
    """Name and out-of-fold probabilities float (N, C) of the methods whose tables are in `folder`."""
    for file in sorted(Path(folder).glob(f"{prefix}*.csv")) if folder else []:
        table = pd.read_csv(file).set_index("path").loc[fold.table["path"]]
        yield file.stem.removeprefix(prefix), table[fold.classes].to_numpy(np.float32)


def reference_of(method: str, recipes: list[str]) -> str:
    """The recipe that a method is compared with: for a recipe the first one, else the one in its name."""
    words = re.split("[ ,]+", method)
    return next((recipe for recipe in recipes if method not in recipes and recipe in words), recipes[0])


def train(data: str, name: str, recipe: str, seed: int, arguments: argparse.Namespace) -> Run:
    """The finished run of `train --folds 4` with this split seed."""
    run = Run(os.path.abspath(os.path.join(arguments.out, f"{name}-{recipe.replace(':', '-')}-{seed}")))
    if not run.finished():
        weights = {"model.weights": arguments.weights} if arguments.weights and recipe.startswith("vgg16") else {}
        settings = {"data.split_seed": seed, **weights}
        animalclf.train(data, recipe=recipe, out=run.root, folds=FOLDS, set=settings, resume=run.exists())
    return run


def folds_of(run: Run) -> Fold:
    """The folds of a run, by the paths of the images."""
    prepared = open_prepared(run.environment().prepared)
    rows = folded_rows(prepared)
    manifest = prepared.manifest.iloc[rows].assign(fold=image_folds(prepared, run.config()), row=rows)
    table = manifest.sort_values("path")[["path", "label", "fold", "row"]]
    groups = np.arange(len(prepared.manifest)) if prepared.groups is None else prepared.groups
    return Fold(table.drop(columns="row"), prepared.labels[table["row"]], groups[table["row"]], prepared.classes)


def logistic_regressions(run: Run, fold: Fold) -> Iterable[tuple[str, np.ndarray]]:
    """Name and out-of-fold probabilities float (N, C) of scikit-learn's logistic regression on the features of a run's
    base: as it is, and with its C chosen by inner folds."""
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    prepared, config = open_prepared(run.environment().prepared), run.config()
    row = pd.Series(np.arange(len(prepared.manifest)), prepared.manifest["path"])
    features = all_features(config, prepared)[row[fold.table["path"]]]
    number = fold.table["fold"].to_numpy()
    parts = [(np.flatnonzero(number != each), np.flatnonzero(number == each)) for each in range(FOLDS)]
    classifier = LogisticRegressionCV(
        Cs=STRENGTHS, cv=4, scoring="neg_log_loss", max_iter=1000, l1_ratios=(0,), use_legacy_attributes=False
    )
    for name, model in (
        ("LogisticRegression", LogisticRegression(max_iter=1000)),
        ("LogisticRegressionCV", classifier),
    ):
        pipeline = make_pipeline(StandardScaler(), model)
        yield name, cross_val_predict(pipeline, features, fold.labels, cv=parts, method="predict_proba")


def correct(probabilities: list[np.ndarray], fold: Fold) -> np.ndarray:
    """bool (seeds, N): whether each image is classified correctly."""
    return np.stack([each.argmax(1) == fold.labels for each in probabilities])


def compare(data: str, method: str, reference: str, probabilities: dict[str, list[np.ndarray]], fold: Fold) -> Result:
    """The metrics of a method, and its difference to another. `probabilities`: of each method with each split seed."""
    own = probabilities[method]
    evaluations = [from_probabilities(each, fold.labels, fold.classes, fold.groups) for each in own]
    metrics = {name: [evaluation[name] for evaluation in evaluations] for name in METRICS}
    low, high = np.mean([evaluation.intervals["balanced_accuracy"] for evaluation in evaluations], axis=0)
    gain, _, _, p = difference(correct(own, fold), correct(probabilities[reference], fold), fold.labels, fold.groups)
    return Result(data, method, metrics, (float(low), float(high)), gain, p, reference)


def show(results: list[Result]) -> None:
    """Print a table of all methods."""
    table = Table(title=TITLE, title_justify="left")
    headings = ("data", "method", "balanced accuracy", "95 % interval", "log loss", "calibration error", "difference")
    for heading in headings:
        table.add_column(heading)
    for result in results:
        accuracy, loss, error = (np.array(result.metrics[name]) for name in METRICS)
        low, high = result.interval
        table.add_row(
            result.data,
            result.method,
            f"{accuracy.mean():.4f} ± {accuracy.std():.4f}",
            f"{low:.3f} to {high:.3f}",
            f"{loss.mean():.3f}",
            f"{error.mean():.3f}",
            f"{result.gain:+.3f} to {result.reference}, p {result.p:.3f}" if result.method != result.reference else "",
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
