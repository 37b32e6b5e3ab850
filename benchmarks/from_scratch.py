"""The big CNN from scratch, step by step: from the reference notebook's training to the recipe big_cnn_modern.

    python -m benchmarks.from_scratch --data species20
    python -m benchmarks.from_scratch --data species20 --steps reference cosine resnet18 --seeds 3 4 5

Each step adds settings to those before it; steps that did not gain, and resnet18, add theirs to one of them. A seed is
that of the training and of the split, so every seed has other validation images, a fifth of the set. They choose no
epoch: the model is that of the last one. Trainings run in parallel processes, on a GPU if there is one. Run folders
are temporary (TMPDIR).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

import animalclf
from animalclf.data.loader import load_images
from animalclf.data.prepared_set import open_prepared
from animalclf.metrics import from_probabilities
from benchmarks.common import argument_parser, write_json

Settings = dict[str, object]
NO_AFFINE: Settings = {"augment.rotation": 0, "augment.shift": 0, "augment.zoom": [1, 1]}
MIXUP: Settings = {"augment.mixup": 0.2, "augment.mix_fraction": 0.5, "augment.mix_off_epochs": 30}
SMALL: Settings = {"model.input_size": 76, "data.stored_size": 84}
LADDER: dict[str, Settings] = {
    "reference": {},
    "adamw": {
        "train.batch_size": 32,
        "model.batchnorm_momentum": 0.9,
        "optim.name": "adamw",
        "optim.eps": 1e-8,
        "optim.weight_decay": 0.05,
        "optim.schedule": "cosine",
        "optim.warmup_epochs": 5,
        "optim.clip_norm": 1.0,
    },
    "average": {"optim.label_smoothing": 0.1, "optim.ema": 0.999},
    "cosine": {"optim.label_smoothing": 0.0, "train.loss": "cosine"},
}
"""What each step adds to big_cnn at 76 px. The last one is big_cnn_modern."""
TRIED: dict[str, tuple[str, Settings]] = {
    "batch32": ("reference", {"train.batch_size": 32}),
    "crop": ("average", {**NO_AFFINE, "augment.crop": [0.35, 1]}),
    "stored112": ("average", {"data.stored_size": 112}),
    "mixup": ("average", MIXUP),
    "cosine_mixup": ("cosine", MIXUP),
    "trivial": ("average", {"augment.trivial": True}),
    "dropout": ("average", {"model.dropout": 0.5}),
    "lr": ("average", {"optim.lr": 2e-3}),
    "resnet18": ("cosine", {"model.name": "resnet18"}),
}
"""Steps that are not in the recipe: what they add to which step."""


@dataclass
class Result:
    """Balanced accuracies of each seed, of the images and averaged with their mirror images, and log losses."""

    accuracy: list[float] = field(default_factory=list)
    mirrored: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)


def main() -> None:
    known = cases()
    parser = argument_parser(__doc__)
    parser.add_argument("--data", required=True, help="labelled images")
    parser.add_argument(
        "--steps", nargs="+", choices=known, metavar="STEP", help=f"of {', '.join(known)} (default: all)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--epochs", type=int, default=110, help="default: 110")
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time (default: 1)")
    parser.add_argument(
        "--sets", nargs="*", default=[], metavar="KEY=VALUE", help="settings of every step (default: 76 px)"
    )
    arguments = parser.parse_args()
    pairs = {key: yaml.safe_load(value) for key, value in (text.split("=", 1) for text in arguments.sets)}
    steps = {name: known[name] | pairs for name in arguments.steps or known}
    results = measure(steps, arguments.data, arguments.seeds, arguments.epochs, arguments.processes)
    show(results, arguments)
    write_json(arguments.json, {name: asdict(result) for name, result in results.items()})


def cases() -> dict[str, Settings]:
    """What each step, by its name, sets in big_cnn."""
    steps: dict[str, Settings] = {}
    settings = dict(SMALL)
    for name, added in LADDER.items():
        settings |= added
        steps[name] = dict(settings)
    return steps | {name: steps[base] | added for name, (base, added) in TRIED.items()}


def measure(
    steps: Mapping[str, Settings], data: str, seeds: Sequence[int], epochs: int, processes: int
) -> dict[str, Result]:
    """Train each step with each seed on `data`, `processes` at a time."""
    results = {name: Result() for name in steps}
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for seed in seeds:
            for name, added in steps.items():
                settings = added | {"train.epochs": epochs, "seed": seed, "data.split_seed": seed}
                stored = {key: value for key, value in settings.items() if key.startswith(("data.", "model.input"))}
                prepared = os.path.join(folder, f"{settings['data.stored_size']}-{seed}")
                animalclf.prepare(data, prepared, recipe="big_cnn", set=stored)
                jobs.append((name, settings, prepared, os.path.join(folder, f"{name}-{seed}")))
        animalclf.leave_ray()
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, spawn, initializer=_quiet) as pool:
            for (name, *_), metrics in zip(jobs, pool.map(_train, *zip(*jobs, strict=True)), strict=True):
                for metric, value in metrics.items():
                    getattr(results[name], metric).append(value)
    return results


def _quiet() -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (for the life of the process)


def _train(name: str, settings: Settings, prepared: str, out: str) -> dict[str, float]:
    """Metrics of the validation images by the last epoch."""
    execution: Settings = {"name": name, "train.threads": 1, "train.select": "last"}
    animalclf.train(prepared, recipe="big_cnn", out=out, set=settings | execution, local=True)
    images, model = open_prepared(prepared), animalclf.load(out)
    rows = images.rows("val")
    pixels, labels = np.stack(load_images(images).views(rows)), images.labels[rows]
    plain, mirrored = model.predict_proba(pixels), model.predict_proba(np.ascontiguousarray(pixels[:, :, ::-1]))
    one = from_probabilities(plain, labels, images.classes)
    two = from_probabilities((plain + mirrored) / 2, labels, images.classes)
    return {"accuracy": one["balanced_accuracy"], "mirrored": two["balanced_accuracy"], "loss": one["loss"]}


def show(results: Mapping[str, Result], arguments: argparse.Namespace) -> None:
    title = f"balanced accuracy after {arguments.epochs} epochs, seeds {' '.join(map(str, arguments.seeds))}"
    table = Table(title=title, title_justify="left")
    for heading in ("step", "mean", "std over seeds", "with mirror image", "log loss"):
        table.add_column(heading)
    for name, result in results.items():
        accuracy, mirrored, loss = (np.array(values) for values in (result.accuracy, result.mirrored, result.loss))
        row = (f"{accuracy.mean():.3f}", f"{accuracy.std():.3f}", f"{mirrored.mean():.3f}", f"{loss.mean():.2f}")
        table.add_row(name, *row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
