"""How well images of no known class are told from those of the classes, and the coverage of prediction sets.

    python -m benchmarks.unknown --data species20
    python -m benchmarks.unknown --data species20 --recipe vgg16_features --weights vgg16_imagenet_features.pth

Half of the classes are known, the others unknown, in several random choices. Of the known images (near-duplicates
together) three fifths fit the heads and the distances, a fifth selects the threshold, and a fifth, which has selected
nothing, measures. Drawn textures and noise are unknown, too. The features are computed once. Prediction sets:
out-of-fold probabilities of all classes, calibrated on a random half of the images and measured on the other half.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

import animalclf
from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data.augment import evaluation_view
from animalclf.data.resize import stored_image
from animalclf.demo.draw import CLUTTER_COLOURS
from animalclf.features.conformal import group_weights, prediction_sets, set_threshold
from animalclf.features.fitting import fit_head
from animalclf.features.folds import deal_folds
from animalclf.features.heads import TrainingSet
from animalclf.features.known import entropy, fit_distances, fit_scorer
from animalclf.models import build
from animalclf.models.fitted_heads import module_of
from animalclf.training.fitted_heads import INNER_FOLDS
from animalclf.training.loop import autocast, choose_bf16
from benchmarks.common import argument_parser, write_json
from benchmarks.features import all_features, out_of_fold

SIDE = 224  # pixels of a drawn image
COVERAGE, SPLITS = 0.9, 20


@dataclass(frozen=True)
class Result:
    """Of each choice of classes: AUROC against the unknown species (also of the parts of the score alone), textures and
    noise; the fractions of images of known and of unknown classes that count as known. Coverage and size of the sets,
    of each split."""

    recipe: str
    species: list[float]
    distance_alone: list[float]
    entropy_alone: list[float]
    textures: list[float]
    noise: list[float]
    kept_known: list[float]
    kept_unknown: list[float]
    coverage: list[float]
    set_size: list[float]


@dataclass(frozen=True, eq=False)
class Images:
    """Features float (N, F), class numbers and groups of near-duplicates int64 (N,)."""

    features: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", required=True, help="labelled images")
    parser.add_argument("--recipe", default="quick", help="a recipe with train.heads")
    parser.add_argument("--weights", help="as model.weights")
    parser.add_argument("--prepared", help="folder that stores the prepared set and its features for the next call")
    parser.add_argument("--seeds", type=int, default=10, help="random choices of the known classes")
    parser.add_argument("--draws", type=int, default=100, help="drawn textures, and as many images of noise")
    result = measure(arguments := parser.parse_args())
    table = Table(title=f"{result.recipe}, {arguments.seeds} choices of classes", title_justify="left")
    for heading in ("", "mean", "lowest", "highest"):
        table.add_column(heading)
    for name, values in list(vars(result).items())[1:]:
        table.add_row(name.replace("_", " "), *(f"{each:.4f}" for each in (np.mean(values), min(values), max(values))))
    Console(width=120).print(table)
    write_json(arguments.json, result)


def measure(arguments: argparse.Namespace) -> Result:
    sets = {"model.weights": arguments.weights} if arguments.weights else {}
    config = configuration.load(arguments.recipe, sets)
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.path.join(arguments.prepared or temporary, arguments.recipe)
        prepared = animalclf.prepare(arguments.data, folder, recipe=arguments.recipe, set=sets)
        features = all_features(config, prepared)
    rows = np.flatnonzero(prepared.manifest["status"] == "ok")
    images = Images(features[rows], prepared.labels[rows], prepared.manifest["group"].to_numpy(np.int64)[rows])
    drawn = {
        name: features_of([draw(np.random.default_rng(seed)) for seed in range(arguments.draws)], config)
        for name, draw in (("textures", draw_texture), ("noise", draw_noise))
    }
    heads = list(config.train.heads)
    measured = [unknown_classes(images, drawn, heads, seed) for seed in range(arguments.seeds)]
    sizes = set_coverage(images, heads)
    columns = {name: [row[name] for row in measured] for name in measured[0]}
    return Result(arguments.recipe, **columns, coverage=[row[0] for row in sizes], set_size=[row[1] for row in sizes])


def unknown_classes(images: Images, drawn: dict[str, np.ndarray], heads: list[str], seed: int) -> dict[str, float]:
    """The figures of one random half of the classes."""
    classes = int(images.labels.max()) + 1
    chosen = np.sort(np.random.default_rng(seed).permutation(classes)[: classes // 2])
    is_known = np.isin(images.labels, chosen)
    features, groups = images.features[is_known], images.groups[is_known]
    labels = np.searchsorted(chosen, images.labels[is_known])
    fold = deal_folds(labels, groups, 5, seed)
    val, held_out, train = fold == 0, fold == 1, fold > 1
    training = TrainingSet(features[train], labels[train], np.ones(train.sum()), len(chosen))
    inner = deal_folds(labels[train], groups[train], INNER_FOLDS, seed)
    with threadpool_limits(torch.get_num_threads()):
        module = module_of([fit_head(kind, training, inner) for kind in heads], np.arange(len(chosen)), len(chosen))
        distances = fit_distances(features[train], labels[train])

    def probabilities(inputs: np.ndarray) -> np.ndarray:
        return module(torch.tensor(inputs, dtype=torch.float32)).exp().numpy()

    scorer = fit_scorer(distances, distances(features[val]), probabilities(features[val]))
    known, unknown = features[held_out], images.features[~is_known]
    own, others = (scorer.score(each, probabilities(each)) for each in (known, unknown))
    return {
        "species": auroc(own, others),
        "distance_alone": auroc(-distances(known), -distances(unknown)),
        "entropy_alone": auroc(-entropy(probabilities(known)), -entropy(probabilities(unknown))),
        **{name: auroc(own, scorer.score(each, probabilities(each))) for name, each in drawn.items()},
        "kept_known": float((own >= 0).mean()),
        "kept_unknown": float((others >= 0).mean()),
    }


def set_coverage(images: Images, heads: list[str]) -> list[tuple[float, float]]:
    """The coverage of the prediction sets and their mean size, of each random half."""
    probabilities = out_of_fold(images.features, images.labels, images.groups, heads, seed=0)
    rows, results = np.arange(len(images.labels)), []
    for seed in range(SPLITS):
        half = deal_folds(images.labels, images.groups, 2, seed) == 0
        weights = group_weights(images.groups[half], int(half.sum()))
        threshold = set_threshold(probabilities[half], images.labels[half], COVERAGE, weights)
        members = prediction_sets(probabilities, threshold)
        covered = members[rows, images.labels][~half].mean()
        results.append((float(covered), float(members[~half].sum(1).mean())))
    return results


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """The probability that a known image has a higher score than an unknown one."""
    ranks = rankdata(np.concatenate([known, unknown]))[: len(known)]
    return float((ranks.sum() - len(known) * (len(known) + 1) / 2) / (len(known) * len(unknown)))


def features_of(images: list[np.ndarray], config: Config) -> np.ndarray:
    """Features float32 (N, F) of images uint8 (H, W, 3) by the frozen base of a recipe."""
    model = build(config.model, 2, keep_shape=config.keeps_shape).eval().to(memory_format=torch.channels_last)
    device, parts = torch.device("cpu"), []
    for start in range(0, len(images), config.train.batch_size):
        batch = images[start : start + config.train.batch_size]
        stored = np.stack([stored_image(image, config.data.stored_size, config.data.resize) for image in batch])
        with torch.no_grad(), autocast(device, choose_bf16(config.train.precision, device)):
            views = torch.from_numpy(evaluation_view(stored, config.view_size))
            parts.append(model.features(views).float().flatten(1).numpy())
    return np.concatenate(parts)


def draw_texture(random: np.random.Generator) -> np.ndarray:
    """Stripes, a checkerboard, dots or a gradient in two colours of the demo set, uint8 (SIDE, SIDE, 3)."""
    low, high = CLUTTER_COLOURS[random.integers(len(CLUTTER_COLOURS), size=2)]
    y, x = np.mgrid[:SIDE, :SIDE]
    angle, period = random.uniform(0, np.pi), random.uniform(6, 60)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    radius = np.hypot(along % period - period / 2, across % period - period / 2)
    patterns = (
        along % period < period / 2,
        (along % period < period / 2) ^ (across % period < period / 2),
        radius < period * random.uniform(0.2, 0.45),
        (along - along.min()) / np.ptp(along),
    )
    mixed = patterns[random.integers(len(patterns))].astype(float)[..., None]
    grain = random.normal(0, random.uniform(0.1, 12), (SIDE, SIDE, 1))
    return np.clip(low * (1 - mixed) + high * mixed + grain, 0, 255).astype(np.uint8)


def draw_noise(random: np.random.Generator) -> np.ndarray:
    """Grey or coloured noise of 1 to 32 pixels, uint8 (SIDE, SIDE, 3)."""
    cells = SIDE // int(2 ** random.integers(6))
    noise = random.integers(0, 256, (cells, cells, int(random.choice([1, 3]))), np.uint8)
    return cv2.resize(np.broadcast_to(noise, (cells, cells, 3)).copy(), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


if __name__ == "__main__":
    main()
