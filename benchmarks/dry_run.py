"""`train --dry-run` and `compare --dry-run` against what the command then takes: time, memory, bytes written.

    ANIMALCLF_SAMPLE_DATA=... python -m benchmarks.dry_run        quick, vgg16_pooled, a small big_cnn, three of them
    ANIMALCLF_SAMPLE_DATA=... python -m benchmarks.dry_run --repeat 3 --json dry_run.json

The command prepares the images of ANIMALCLF_SAMPLE_DATA/animals10_sample, or of --data. Plan and training alternate,
--repeat times. Other work on the machine between the two changes the ratio: `load` is the mean load while each ran.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from animalclf.rows import ComparisonPlan, TrainingPlan
from benchmarks.common import animalclf, argument_parser, write_json

VGG16 = "vgg16_imagenet_features.pth"
SMALL = ("train.epochs=4", "model.input_size=92", "data.stored_size=96", "train.batch_size=64")
COMPARE = "compare: three small big_cnn"
RECIPES = {
    "quick": (),
    "vgg16_pooled": ("model.weights={weights}", "data.stored_size=128", "model.input_size=128"),
    "big_cnn": SMALL,
    COMPARE: SMALL,
}


@dataclass(frozen=True)
class Round:
    """A plan and the training after it."""

    recipe: str
    planned_seconds: float
    seconds: float
    plan_takes: float
    """Seconds of the plan's command."""
    planned_epochs: float
    """Seconds of features, heads, epochs and their validation; next, those of the training."""
    epochs: float
    planned_start: float
    """Seconds to the first step, without `prepare`; next, those of the training."""
    start: float
    planned_worker_bytes: int
    worker_bytes: int
    planned_written: int
    written: int
    planned_load: float
    load: float
    phases: dict[str, float]
    """Planned seconds."""

    @property
    def ratio(self) -> float:
        """Of the planned seconds to those that it took."""
        return self.planned_seconds / self.seconds


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", help="class folders (default: ANIMALCLF_SAMPLE_DATA/animals10_sample)")
    parser.add_argument("--recipes", default=",".join(RECIPES), help="(default: all)")
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    rounds = measure(arguments)
    show(rounds)
    write_json(arguments.json, {"rounds": [vars(each) | {"ratio": each.ratio} for each in rounds]})


def measure(arguments: argparse.Namespace) -> list[Round]:
    sample = os.environ.get("ANIMALCLF_SAMPLE_DATA", "")
    if not (arguments.data or sample):
        sys.exit("name the images: --data FOLDER, or the environment variable ANIMALCLF_SAMPLE_DATA")
    data = arguments.data or f"{sample}/animals10_sample"
    rounds = []
    for _ in range(arguments.repeat):
        for recipe in arguments.recipes.split(","):
            sets = [text.format(weights=f"{sample}/{VGG16}") for text in RECIPES.get(recipe, ())]
            with tempfile.TemporaryDirectory() as folder:
                rounds.append(one_round(recipe, data, folder, [flag for text in sets for flag in ("--set", text)]))
            phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in rounds[-1].phases.items())
            Console(width=120).print(
                f"{recipe}: planned {rounds[-1].planned_seconds:.0f} s, took {rounds[-1].seconds:.0f} s; {phases}"
            )
    return rounds


def one_round(recipe: str, data: str, folder: str, sets: list[str]) -> Round:
    command = (
        ["train", "--recipe", recipe] if recipe != COMPARE else ["compare", "--recipes", "big_cnn", "--seeds", "3"]
    )
    command += ["--data", data, "--out", f"{folder}/run", "--json", *sets]
    started = time.monotonic()
    output, planned_load, _ = watched(lambda: animalclf(*command, "--dry-run", RAY_ADDRESS="local"))
    plan_takes, content = time.monotonic() - started, json.loads(output)
    comparison = ComparisonPlan.from_dict(content) if recipe == COMPARE else None
    plan = comparison.costs[0].plan if comparison else TrainingPlan.from_dict(content)
    started = time.monotonic()
    output, load, worker_bytes = watched(lambda: animalclf(*command, RAY_ADDRESS="local"))
    seconds, result = time.monotonic() - started, json.loads(output)
    written = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    startup = result.get("startup", {})
    return Round(
        recipe=recipe,
        planned_seconds=comparison.total_seconds if comparison else plan.total_seconds,
        seconds=seconds,
        plan_takes=plan_takes,
        planned_epochs=sum(plan.seconds.get(name, 0.0) for name in ("features", "heads", "epochs")),
        epochs=result.get("seconds", 0.0),
        planned_start=sum(plan.seconds.get(name, 0.0) for name in ("start", "Ray", "prepare", "workers")),
        start=sum(seconds for name, seconds in startup.items() if name in ("images", "ray", "workers")),
        planned_worker_bytes=plan.memory["worker"],
        worker_bytes=worker_bytes,
        planned_written=sum(plan.written.values()),
        written=written,
        planned_load=planned_load,
        load=load,
        phases=plan.seconds,
    )


def watched(command: Callable[[], str]) -> tuple[str, float, int]:
    """The output of `command`, the mean load of the machine meanwhile, and the peak memory of a training worker."""
    ended, loads, peak = threading.Event(), [], [0]

    def watch() -> None:
        while not ended.wait(0.5):
            loads.append(running())
            for process in psutil.Process().children(recursive=True):
                try:
                    if "RayTrainWorker" in " ".join(process.cmdline()):
                        peak[0] = max(peak[0], process.memory_info().rss)
                except psutil.Error:  # one that has just ended
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        output = command()
    finally:
        ended.set()
        thread.join()
    return output, statistics.fmean(loads) if loads else 0.0, peak[0]


def running() -> int:
    """Processes and threads of the machine that run or wait for a CPU; 0 where the system does not tell."""
    try:
        return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    except OSError:
        return 0


def show(rounds: list[Round]) -> None:
    table = Table(title="planned against actual", title_justify="left")
    headings = ("", "command, s", "ratio", "epochs, s", "start, s", "worker, GB", "written, MB", "runnable", "plan, s")
    for heading in headings:
        table.add_column(heading)
    for each in rounds:
        table.add_row(
            each.recipe,
            f"{each.planned_seconds:.0f} / {each.seconds:.0f}",
            f"{each.ratio:.2f}",
            f"{each.planned_epochs:.1f} / {each.epochs:.1f}",
            f"{each.planned_start:.0f} / {each.start:.0f}",
            f"{each.planned_worker_bytes / 1e9:.2f} / {each.worker_bytes / 1e9:.2f}",
            f"{each.planned_written / 1e6:.1f} / {each.written / 1e6:.1f}",
            f"{each.planned_load:.1f} / {each.load:.1f}",
            f"{each.plan_takes:.0f}",
        )
    Console(width=130).print(table)
    for recipe in dict.fromkeys(each.recipe for each in rounds):
        ratios = [each.ratio for each in rounds if each.recipe == recipe]
        text = f"median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{recipe}: planned over actual, {len(ratios)} rounds: {text}")


if __name__ == "__main__":
    main()
