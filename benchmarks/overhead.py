"""Overhead of the framework: `animalclf train` on Ray workers, against the same loop in plain PyTorch, fed from memory.

    python -m benchmarks.overhead                       big CNN, 1, 2 and 4 workers
    python -m benchmarks.overhead --workers 1 --json overhead.json

Images/s is of the epochs after the first. The two alternate, --repeat times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field, fields

from rich.console import Console
from rich.table import Table

from animalclf.runs import Run
from benchmarks.common import animalclf, argument_parser, run, write_json
from benchmarks.images import write_demo

PLAIN = """
import sys
from animalclf import config as configuration
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.data.prepared_set import open_prepared
from animalclf.runs import Run
from animalclf.training.distributed import RankContext, set_up_cpu
from animalclf.training.train import train
data, out, sets = sys.argv[1], sys.argv[2], sys.argv[3:]
config, prepared = configuration.load("big_cnn", configuration.parse_sets(sets)), open_prepared(data)
set_up_cpu(0, 1)
images = load_images(prepared)
train(config, prepared, Run(out), lambda plan, passes: MemoryLoader(plan, images), RankContext())
"""


@dataclass(frozen=True)
class Training:
    """One training."""

    images_per_s: float
    wait_fraction: float
    """Of the time of the steps, both of the epochs after the first."""
    seconds: float
    """The whole command."""
    seconds_outside_epochs: float
    startup: dict[str, float] = field(default_factory=dict)
    """Seconds of each part of the start."""


@dataclass(frozen=True)
class WorkersResult:
    workers: int
    training: Training
    ratio: float
    """Images/s over those of the plain loop, the median over rounds."""


@dataclass(frozen=True)
class Results:
    images: int
    epochs: int
    plain: Training
    ray: list[WorkersResult]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--workers", default="1,2,4", help="numbers of Ray workers (default: 1,2,4)")
    parser.add_argument("--images", type=int, default=160, help="images of the demo set (default: 160)")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--input-size", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    results = measure(arguments)
    show(results)
    write_json(arguments.json, results)


def measure(arguments: argparse.Namespace) -> Results:
    worker_counts = [int(text) for text in arguments.workers.split(",")]
    sets = [
        f"train.epochs={arguments.epochs}",
        f"train.batch_size={arguments.batch_size}",
        f"model.input_size={arguments.input_size}",
    ]
    plain: list[Training] = []
    ray: dict[int, list[Training]] = {workers: [] for workers in worker_counts}
    with tempfile.TemporaryDirectory() as folder:
        photos, prepared = write_demo(f"{folder}/demo", arguments.images), f"{folder}/prepared"
        animalclf("prepare", "--recipe", "big_cnn", "--data", photos, "--out", prepared)
        for turn in range(arguments.repeat):
            plain.append(plain_training(prepared, f"{folder}/plain{turn}", sets))
            for workers, trainings in ray.items():
                trainings.append(ray_training(prepared, f"{folder}/ray{turn}-{workers}", sets, workers))
    rows = []
    for workers, trainings in ray.items():
        ratios = [ours.images_per_s / base.images_per_s for ours, base in zip(trainings, plain, strict=True)]
        rows.append(WorkersResult(workers, median(trainings), statistics.median(ratios)))
    return Results(arguments.images, arguments.epochs, median(plain), rows)


def plain_training(prepared: str, out: str, sets: list[str]) -> Training:
    started = time.time()
    run([sys.executable, "-c", PLAIN, prepared, out, *sets])
    return read_training(out, time.time() - started, {})


def ray_training(prepared: str, out: str, sets: list[str], workers: int) -> Training:
    flags = [flag for text in sets for flag in ("--set", text)]
    started = time.time()
    stdout = animalclf(
        "train",
        "--recipe",
        "big_cnn",
        "--json",
        "--cpu",
        "--data",
        prepared,
        "--out",
        out,
        "--workers",
        str(workers),
        *flags,
    )
    return read_training(out, time.time() - started, json.loads(stdout)["startup"])


def read_training(out: str, seconds: float, startup: dict[str, float]) -> Training:
    history = Run(out).metrics()
    later = history[1:]
    train_seconds = sum(row.train_seconds for row in later)
    return Training(
        images_per_s=sum(row.train_rows for row in later) / train_seconds,
        wait_fraction=sum(row.wait_fraction * row.train_seconds for row in later) / train_seconds,
        seconds=seconds,
        seconds_outside_epochs=seconds - sum(row.seconds for row in history),
        startup=startup,
    )


def median(trainings: list[Training]) -> Training:
    """The median of each number."""
    numbers = [item.name for item in fields(Training) if item.name != "startup"]
    medians = {name: statistics.median(getattr(training, name) for training in trainings) for name in numbers}
    startup = {part: statistics.median(each.startup[part] for each in trainings) for part in trainings[0].startup}
    return Training(**medians, startup=startup)


def show(results: Results) -> None:
    title = "the whole `train` command, against the same loop in plain PyTorch, fed from memory"
    table = Table(title=title, title_justify="left")
    for heading in ("", "images/s", "against plain", "data loading", "command, s", "outside epochs, s"):
        table.add_column(heading)
    plain = results.plain
    table.add_row("plain PyTorch, 1 process", f"{plain.images_per_s:.1f}", "1.00", "", f"{plain.seconds:.0f}", "")
    for row in results.ray:
        training = row.training
        table.add_row(
            f"animalclf train, {plural(row.workers)}",
            f"{training.images_per_s:.1f}",
            f"{row.ratio:.2f}",
            f"{training.wait_fraction:.1%}",
            f"{training.seconds:.0f}",
            f"{training.seconds_outside_epochs:.0f}",
        )
    console = Console(width=120)
    console.print(table)
    for row in results.ray:
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in row.training.startup.items())
        console.print(f"start to first step, {plural(row.workers)}: {parts}")


def plural(workers: int) -> str:
    return f"{workers} worker{'s' if workers > 1 else ''}"


if __name__ == "__main__":
    main()
