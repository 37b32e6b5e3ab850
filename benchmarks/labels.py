"""How well `animalclf labels` finds wrong labels that are planted in a labelled folder, and what correcting them gains.

    python -m benchmarks.labels --data species20 --prepared sets/

A fraction of the labels is replaced by another class, drawn from all or (`--confusable`) from the three whose mean
features are nearest. Every image is judged by heads that are fitted without its fold, on the features of the recipe
`quick`. `--prepared` stores the set and its features for the next call. Rows of cleanlab appear if it is installed.

Gain: the same with a fifth of the images held out with their labels as they are. A head is fitted on the others as
planted, after a person has corrected the planted labels among the listed ones, and with all labels as they are.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections import defaultdict

import numpy as np
from rich.console import Console
from rich.table import Table

from animalclf.features.folds import deal_folds
from animalclf.features.heads import TrainingSet
from animalclf.labelling.confident import likely_wrong, margins
from animalclf.labelling.out_of_fold import FOLDS, head_probabilities
from animalclf.metrics import from_probabilities
from animalclf.training.fitted_heads import INNER_FOLDS, image_weights
from benchmarks.common import argument_parser, write_json
from benchmarks.features import features_of_quick, fitted

FIRST = 50  # images of the list whose precision is reported
NEAREST = 3  # classes that a confusable label is drawn from


def main() -> None:
    arguments = parse()
    features, labels, groups = features_of_quick(arguments.data, arguments.prepared)
    results: dict[str, list[dict[str, float]]] = defaultdict(list)
    started = time.perf_counter()
    for seed in range(arguments.seeds):
        given = plant(features, labels, arguments, seed)
        probabilities = judge(features, given, groups, arguments.heads, seed)
        for name, listed in lists(probabilities, given).items():
            results[name].append(found(listed, given != labels))
        results["gain"].append(gain(features, labels, groups, arguments, seed))
    show(results, len(labels), round(arguments.fraction * len(labels)), time.perf_counter() - started)
    write_json(arguments.json, results)


def parse() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", required=True, help="labelled images")
    parser.add_argument("--prepared", help="folder that stores the prepared set and its features")
    parser.add_argument("--heads", nargs="+", default=["logistic"], help="as train.heads")
    parser.add_argument("--fraction", type=float, default=0.05, help="of the labels that are wrong")
    parser.add_argument("--confusable", action="store_true", help="wrong labels are those of similar classes")
    parser.add_argument("--seeds", type=int, default=5)
    return parser.parse_args()


def plant(features: np.ndarray, labels: np.ndarray, arguments: argparse.Namespace, seed: int) -> np.ndarray:
    """The labels int64 (N,) with a fraction of wrong ones."""
    generator, classes = np.random.default_rng(seed), int(labels.max()) + 1
    planted = generator.choice(len(labels), round(arguments.fraction * len(labels)), replace=False)
    means = np.stack([features[labels == number].mean(0) for number in range(classes)])
    distances = ((means[:, None] - means) ** 2).sum(-1)
    others = np.argsort(distances, axis=1)[:, 1 : NEAREST + 1 if arguments.confusable else classes]
    given = labels.copy()
    given[planted] = others[labels[planted], generator.integers(0, others.shape[1], len(planted))]
    return given


def judge(features: np.ndarray, given: np.ndarray, groups: np.ndarray, heads: list[str], seed: int) -> np.ndarray:
    """Out-of-fold probabilities float (N, C) under the given labels."""
    training = TrainingSet(features, given, image_weights(given, "class_weights"), int(given.max()) + 1)
    return head_probabilities(training, deal_folds(given, groups, FOLDS, seed), heads)


def lists(probabilities: np.ndarray, given: np.ndarray) -> dict[str, np.ndarray]:
    """The images that each method lists, the worst first."""
    margin, _ = margins(probabilities, given)
    self_confidence = probabilities[np.arange(len(given)), given]
    ours = likely_wrong(probabilities, given)
    by_margin, by_confidence = np.argsort(margin, kind="stable"), np.argsort(self_confidence, kind="stable")
    methods = {
        "animalclf labels": ours,
        "lowest probability of the label, as many": by_confidence[: len(ours)],
        "all with another prediction, by margin": by_margin[: int((margin < 0).sum())],
        "all with another prediction, by probability": by_confidence[margin[by_confidence] < 0],
    }
    if importlib.util.find_spec("cleanlab"):
        from cleanlab.filter import find_label_issues

        for method in ("prune_by_noise_rate", "confident_learning"):
            methods[f"cleanlab, {method}"] = find_label_issues(
                given, probabilities, filter_by=method, return_indices_ranked_by="normalized_margin", n_jobs=1
            )
    return methods


def found(listed: np.ndarray, planted: np.ndarray) -> dict[str, float]:
    return {
        "precision_first": float(planted[listed[:FIRST]].mean()),
        "listed": len(listed),
        "precision": float(planted[listed].mean()),
        "recall": float(planted[listed].sum() / planted.sum()),
    }


def gain(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, arguments: argparse.Namespace, seed: int
) -> dict[str, float]:
    """Balanced accuracy on the held-out fifth of a head on planted, corrected and original labels."""
    held_out = deal_folds(labels, groups, 5, seed) == 0
    features_in, labels_in, groups_in = features[~held_out], labels[~held_out], groups[~held_out]
    given = plant(features_in, labels_in, arguments, seed)
    listed = likely_wrong(judge(features_in, given, groups_in, arguments.heads, seed), given)
    corrected = given.copy()
    corrected[listed] = labels_in[listed]
    accuracies = {}
    for name, training_labels in (("planted", given), ("corrected", corrected), ("original", labels_in)):
        inner = deal_folds(training_labels, groups_in, INNER_FOLDS, seed)
        predict = fitted(features_in, training_labels, inner, arguments.heads, int(labels.max()) + 1, "class_weights")
        accuracies[name] = balanced_accuracy(predict(features[held_out]), labels[held_out])
    return accuracies


def balanced_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    names = [str(number) for number in range(probabilities.shape[1])]
    return from_probabilities(probabilities, labels, names)["balanced_accuracy"]


def show(results: dict[str, list[dict[str, float]]], images: int, planted: int, seconds: float) -> None:
    """Two tables: lists and gain; mean and standard deviation over the seeds."""
    columns = {"precision_first": f"precision of the first {FIRST}", "listed": "listed", "precision": "precision"}
    columns["recall"] = "recall"
    title = f"{planted} wrong labels planted among {images:,}, {len(results['gain'])} seeds, {seconds:.0f} s"
    _print(title, "list", columns, {name: rows for name, rows in results.items() if name != "gain"})
    gains = {"balanced accuracy": results["gain"]}
    _print("on held-out images, by the training labels", "", {name: name for name in results["gain"][0]}, gains)


def _print(title: str, first: str, columns: dict[str, str], results: dict[str, list[dict[str, float]]]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for name, rows in results.items():
        values = [np.array([row[key] for row in rows]) for key in columns]
        table.add_row(name, *(f"{each.mean():.{1 if each.max() > 1 else 3}f} ± {each.std():.3f}" for each in values))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
