"""How many labels `animalclf suggest` saves against labelling images at random, on a labelled folder.

    python -m benchmarks.suggest --data species20 --prepared sets/

Two fifths of the images are held out. Of the others `--start` random ones are labelled; each round adds `--step`
images, chosen by one strategy, and fits a head on the features of the recipe `quick`. The last table has, for some
balanced accuracies of the random strategy, the labels that the others need for the same (interpolated between rounds).
All strategies begin from the same images. `--prepared` stores the set and its features for the next call.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from animalclf.features.folds import deal_folds
from animalclf.labelling.selection import select, uncertainty
from benchmarks.common import argument_parser, write_json
from benchmarks.features import features_of_quick, fitted
from benchmarks.labels import balanced_accuracy

INNER_FOLDS = 3  # few images: some classes have one
HELD_OUT = 2  # of 5 folds
SHOWN = 2  # every second round is in the tables


def by_suggest(
    pool: np.ndarray, probabilities: np.ndarray, labelled: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    return select(pool, uncertainty(probabilities), labelled, count).order


def at_random(
    pool: np.ndarray, probabilities: np.ndarray, labelled: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    return generator.permutation(len(pool))[:count]


def by_uncertainty(
    pool: np.ndarray, probabilities: np.ndarray, labelled: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    return np.argsort(-uncertainty(probabilities), kind="stable")[:count]


def by_k_centre(
    pool: np.ndarray, probabilities: np.ndarray, labelled: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """The image that is farthest from all others, again and again (Sener, Savarese 2018)."""
    distance = np.min([((pool - image) ** 2).sum(1) for image in labelled], axis=0)
    order = []
    for _ in range(count):
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, ((pool - pool[order[-1]]) ** 2).sum(1))
    return np.array(order)


Strategy = Callable[[np.ndarray, np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]
STRATEGIES: dict[str, Strategy] = {
    "random": at_random,
    "animalclf suggest": by_suggest,
    "uncertainty alone": by_uncertainty,
    "k-centre alone": by_k_centre,
}


def main() -> None:
    arguments = parse()
    features, labels, groups = features_of_quick(arguments.data, arguments.prepared)
    seeds, started = range(arguments.first_seed, arguments.first_seed + arguments.seeds), time.perf_counter()
    curves = {
        name: np.array([curve(strategy, features, labels, groups, arguments, seed) for seed in seeds])
        for name, strategy in STRATEGIES.items()
    }
    counts = arguments.start + arguments.step * np.arange(arguments.rounds + 1)
    show(curves, counts, time.perf_counter() - started)
    write_json(arguments.json, {name: values.tolist() for name, values in curves.items()})


def parse() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", required=True, help="labelled images")
    parser.add_argument("--prepared", help="folder that stores the prepared set and its features")
    parser.add_argument("--start", type=int, default=40, help="random labels before the first round")
    parser.add_argument("--step", type=int, default=10, help="labels of a round")
    parser.add_argument("--rounds", type=int, default=22)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    return parser.parse_args()


def curve(
    strategy: Strategy,
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    arguments: argparse.Namespace,
    seed: int,
) -> list[float]:
    """Balanced accuracy on the held-out images at the start and after each round."""
    folds, generator = deal_folds(labels, groups, 5, seed), np.random.default_rng(seed)
    held_out, pool = np.flatnonzero(folds < HELD_OUT), np.flatnonzero(folds >= HELD_OUT)
    labelled, accuracies = generator.permutation(pool)[: arguments.start], []
    for number in range(arguments.rounds + 1):
        inner = deal_folds(labels[labelled], groups[labelled], INNER_FOLDS, seed)
        classes = int(labels.max()) + 1
        predict = fitted(features[labelled], labels[labelled], inner, ["logistic"], classes, "class_weights")
        accuracies.append(balanced_accuracy(predict(features[held_out]), labels[held_out]))
        rest = np.setdiff1d(pool, labelled)
        count = min(arguments.step, len(rest)) if number < arguments.rounds else 0
        if count:
            chosen = strategy(features[rest], predict(features[rest]), features[labelled], count, generator)
            labelled = np.concatenate([labelled, rest[chosen]])
    return accuracies


def labels_needed(accuracies: np.ndarray, counts: np.ndarray, target: float) -> float:
    """The labels at which the curve float (rounds + 1,) first reaches the target, between rounds on a straight line;
    NaN if it does not."""
    reached = np.flatnonzero(accuracies >= target)
    if not len(reached):
        return float("nan")
    last = int(reached[0])
    if not last:
        return float(counts[0])
    below, above = accuracies[last - 1], accuracies[last]
    return float(counts[last - 1] + (counts[last] - counts[last - 1]) * (target - below) / (above - below))


def show(curves: dict[str, np.ndarray], counts: np.ndarray, seconds: float) -> None:
    """The curves, mean and standard deviation over the seeds, and the labels that each strategy needs."""
    seeds = len(curves["random"])
    table = Table(title=f"balanced accuracy by labels, {seeds} seeds, {seconds:.0f} s", title_justify="left")
    table.add_column("labels", justify="right")
    for name in curves:
        table.add_column(name, justify="right")
    for number in range(0, len(counts), SHOWN):
        cells = [f"{values[:, number].mean():.3f} ± {values[:, number].std():.3f}" for values in curves.values()]
        table.add_row(str(counts[number]), *cells)
    needed = Table(title="labels for the balanced accuracy that random labels give", title_justify="left")
    for heading in ("random labels", "balanced accuracy", *(name for name in curves if name != "random")):
        needed.add_column(heading, justify="right")
    for number in range(2, len(counts), SHOWN):
        target = curves["random"][:, number].mean()
        row = []
        for name, values in curves.items():
            if name != "random":
                each = np.array([labels_needed(values[seed], counts, target) for seed in range(seeds)])
                fraction = labels_needed(values.mean(0), counts, target) / counts[number]
                row.append(f"{fraction:.0%} ({np.nanmin(each):.0f} to {np.nanmax(each):.0f} labels)")
        needed.add_row(str(counts[number]), f"{target:.3f}", *row)
    console = Console(width=140)
    console.print(table)
    console.print(needed)


if __name__ == "__main__":
    main()
