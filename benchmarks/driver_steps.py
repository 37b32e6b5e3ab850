"""Time and memory of what the driver alone does, as the number of images grows: the split, the plan of an epoch, the
search for near-duplicates, a leaderboard, a report, and the tables of `predict`.

    python -m benchmarks.driver_steps                                         10,000 and 100,000 images
    python -m benchmarks.driver_steps --sizes 10000 100000 1000000 --steps split plan predict
    python -m benchmarks.driver_steps --plot steps.svg --json steps.json

The manifests, signatures and probabilities are synthetic, so no images are read. Each step at each size is a process of
its own. CPU time counts, because it hardly depends on other load; its exponent is the slope between the smallest and
the largest size in logarithms. `--plot` draws the CPU time of each step over the number of images.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from animalclf import config as configuration
from benchmarks.common import argument_parser, run, write_json
from benchmarks.growth import draw, exponent

CLASSES = [f"class{label}" for label in range(10)]
RUNS = 2  # of the leaderboard and the report


@dataclass(frozen=True)
class Cost:
    """Of one step. Seconds are of CPU time."""

    step: str
    images: int
    seconds: float
    start_gb: float
    """Peak memory (RSS) before the step, with its input."""
    peak_gb: float


@dataclass(frozen=True)
class Results:
    costs: list[Cost]
    exponents: dict[str, float]


def split(count: int, folder: Path) -> Callable[[], object]:
    from animalclf.prepare.split import split

    manifest = synthetic_manifest(count)
    return lambda: split(manifest, configuration.Data())


def plan(count: int, folder: Path) -> Callable[[], object]:
    """Opens the prepared set, and plans an epoch of it."""
    from animalclf.data import prepared_set, sampler
    from animalclf.prepare.split import split
    from animalclf.utils import storage

    data = configuration.Data(stored_size=144)
    manifest = synthetic_manifest(count)
    manifest["split"] = split(manifest, data)
    storage.write_table(str(folder / prepared_set.MANIFEST), manifest)
    info = {
        "format": prepared_set.FORMAT,
        "classes": CLASSES,
        "stored_size": data.stored_size,
        "fingerprint": f"synthetic-{count}",
        "config": configuration.to_dict(data),
        "shards": [{"file": "shard-00000.parquet", "rows": count}],
    }
    storage.write_json(str(folder / prepared_set.INFO), info)

    def step() -> None:
        sampling_plan = sampler.sampling_plan(prepared_set.open_prepared(str(folder)), configuration.load("big_cnn"))
        sampling_plan.batch_rows("train", 0, 0, 8)

    return step


def duplicates(count: int, folder: Path) -> Callable[[], object]:
    """5 % are mirrored duplicates, which are found and verified."""
    from animalclf.duplicates import find
    from benchmarks.duplicates import grey_image, textures

    signatures, sha256 = textures(count), np.array([f"{row:064x}" for row in range(count)], dtype=bytes)
    return lambda: find.find_duplicates(sha256, signatures, lambda row: grey_image(signatures, row))


def leaderboard(count: int, folder: Path) -> Callable[[], object]:
    """Of runs that are validated on all images."""
    from animalclf.report.leaderboard import leaderboard
    from animalclf.runs import Run

    write_runs(count, folder)
    return lambda: leaderboard([Run(str(folder / f"run{number}")) for number in range(RUNS)])


def report(count: int, folder: Path) -> Callable[[], object]:
    import animalclf

    write_runs(count, folder)
    return lambda: animalclf.report([folder / f"run{number}" for number in range(RUNS)], out=folder / "report")


def predict(count: int, folder: Path) -> Callable[[], object]:
    """All of `predict` but the images and the model: ids, prior, table, predictions.parquet and submission.csv."""
    from animalclf.inference import prior_shift, submission
    from animalclf.predictions import predictions_table, write_predictions

    paths, probabilities = synthetic_paths(count), synthetic_probabilities(count, 0)
    prior = [1 / len(CLASSES)] * len(CLASSES)

    def step() -> None:
        ids = submission.image_ids(paths)
        form = submission.form_like(None, ids, CLASSES)
        corrected, _ = prior_shift.apply(probabilities, prior, prior_shift.parse_prior("train", CLASSES, prior))
        table = predictions_table(paths, CLASSES, corrected, ["ok"] * count).assign(id=ids)
        write_predictions(str(folder / "predictions.parquet"), table)
        submission.write_form(str(folder / "submission.csv"), form, table)

    return step


STEPS = {step.__name__: step for step in (split, plan, duplicates, leaderboard, report, predict)}


def synthetic_paths(count: int) -> list[str]:
    return [f"{CLASSES[row % len(CLASSES)]}/{row:08d}.jpg" for row in range(count)]


def synthetic_manifest(count: int) -> pd.DataFrame:
    rows = np.arange(count)
    labels = np.array(CLASSES, object)[rows % len(CLASSES)]
    columns = {"path": synthetic_paths(count), "label": labels, "group": rows, "status": "ok", "split": ""}
    return pd.DataFrame(
        {**columns, "sha256": [f"{row:064x}" for row in range(count)], "shard": 0, "row": rows, "bytes": 25_000}
    )


def synthetic_probabilities(count: int, seed: int) -> np.ndarray:
    """float32 (count, classes): about 85 % right."""
    generator = np.random.default_rng(seed)
    logits = generator.standard_normal((count, len(CLASSES)), np.float32)
    logits[np.arange(count), np.arange(count) % len(CLASSES)] += 3
    exponential = np.exp(logits)
    return np.asarray(exponential / exponential.sum(1, keepdims=True))


def write_runs(count: int, folder: Path) -> None:
    """Write RUNS run folders as training does, without a model."""
    from animalclf.metrics import from_probabilities
    from animalclf.predictions import predictions_table
    from animalclf.rows import EpochRow
    from animalclf.runs import Run

    labels, paths, groups = np.arange(count) % len(CLASSES), synthetic_paths(count), np.arange(count)
    for number in range(RUNS):
        run, config = Run(str(folder / f"run{number}")), configuration.load("big_cnn", {"optim.lr": 0.001 + number})
        probabilities = synthetic_probabilities(count, number)
        val = from_probabilities(probabilities, labels, CLASSES, groups)
        run.write_config(config)
        run.write_environment()
        run.write_metrics([EpochRow(1, seconds=1.0)])
        names = [CLASSES[label] for label in labels]
        run.write_predictions("val", predictions_table(paths, CLASSES, probabilities, ["ok"] * count, names, groups))
        fields = {"run": run.root, "recipe": config.name, "seed": 0, "classes": CLASSES, "best_epoch": 1, "epochs": 1}
        metrics = {"val": val.to_dict(), "balanced_accuracy": val["balanced_accuracy"]}
        run.write_result({**fields, **metrics, "workers": 1, "images_per_s": 1.0})


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], metavar="IMAGES")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP", help="only these")
    parser.add_argument("--task", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--plot", metavar="FILE", help="draw the results as this file (.svg, .png)")
    arguments = parser.parse_args()
    if arguments.task:
        print(json.dumps(dataclasses.asdict(measure(arguments.task[0], int(arguments.task[1])))))
        return
    command = [sys.executable, "-m", "benchmarks.driver_steps", "--task"]
    costs = [
        Cost(**json.loads(run([*command, step, str(size)]).splitlines()[-1]))
        for step in arguments.steps
        for size in sorted(arguments.sizes)
    ]
    lines = {step: [(cost.images, cost.seconds) for cost in costs if cost.step == step] for step in arguments.steps}
    results = Results(costs, {step: exponent(line) for step, line in lines.items()})
    show(results)
    draw(arguments.plot, "CPU seconds", "images", lines)
    write_json(arguments.json, results)


def measure(step: str, count: int) -> Cost:
    """The cost of a step in this process."""
    with tempfile.TemporaryDirectory() as folder:
        call = STEPS[step](count, Path(folder))
        start, started = peak_memory(), time.process_time()
        call()
        return Cost(step, count, time.process_time() - started, start, peak_memory())


def peak_memory() -> float:
    """GB (RSS) of this process until now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def show(results: Results) -> None:
    table = Table(title="what the driver does, CPU seconds and peak memory", title_justify="left")
    sizes = sorted({cost.images for cost in results.costs})
    for heading in ("", *(f"{size:,} images" for size in sizes), "exponent"):
        table.add_column(heading, justify="right" if heading else "left")
    for step, slope in results.exponents.items():
        costs = [cost for cost in results.costs if cost.step == step]
        cells = [f"{cost.seconds:.2f} s, {cost.peak_gb:.2f} GB" for cost in costs]
        table.add_row(step, *cells, "" if math.isnan(slope) else f"{slope:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
