"""Cost of scheduling: six short trials of one comparison, one at a time, against six `train` commands in sequence.

    python -m benchmarks.compare                                  the demo recipe with six seeds
    python -m benchmarks.compare --seeds 3 --epochs 4 --json compare.json

Both start from the same prepared set, and all time counts: start of Python and Ray, imports, training, evaluation, end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.common import animalclf, argument_parser, write_json
from benchmarks.images import write_demo

COMPARE = """
import json, sys, time
from animalclf import cluster
from animalclf.config import parse_sets
from animalclf.rows import PhaseProgress, TrialEntry, TrialProgress
from animalclf.tuning.compare import compare
from animalclf.tuning.spec_parsing import build_spec, comparison_tree
data, out, seeds, sets = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
spec = build_spec(comparison_tree(recipes=["demo"], seeds=seeds, set=parse_sets(sets)))
starts, steps = {}, {}

def show(event):
    if isinstance(event, TrialEntry) and event.state == "running":
        starts.setdefault(event.slug, time.time())
    elif isinstance(event, TrialProgress) and isinstance(event.event, PhaseProgress):
        steps.setdefault(event.trial, time.time())

summary = compare(spec, data, out, max_concurrent=1, show=show)
cluster.leave_ray()
print(json.dumps([steps[slug] - starts[slug] for slug in starts]))
sys.exit(len(summary.trials) - len(summary.runs))
"""


@dataclass(frozen=True)
class Results:
    trials: int
    images: int
    epochs: int
    train_seconds: list[float]
    """Of each train command."""
    train_total: float
    compare_seconds: float
    ratio: float
    """compare_seconds / train_total."""
    first_steps: list[float]
    """Seconds from the start of each trial to its first step, as the driver sees them (0.3 s late at most)."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=6, help="trials (default: 6)")
    parser.add_argument("--images", type=int, default=160, help="images of the demo set (default: 160)")
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    results = measure(arguments.seeds, arguments.images, arguments.epochs)
    show(results)
    write_json(arguments.json, results)


def measure(seeds: int, images: int, epochs: int) -> Results:
    """Half of the train commands run before the comparison and half after it, so that a drift of the machine's speed
    affects both."""
    sets = [f"train.epochs={epochs}"]
    with tempfile.TemporaryDirectory() as folder:
        photos, prepared = write_demo(os.path.join(folder, "photos"), images), os.path.join(folder, "prepared")
        animalclf("prepare", "--data", photos, "--out", prepared, "--recipe", "demo")

        def train(seed: int) -> float:
            started = time.perf_counter()
            flags = [flag for text in (f"seed={seed}", *sets) for flag in ("--set", text)]
            out = os.path.join(folder, f"run-{seed}")
            animalclf("train", "--recipe", "demo", "--data", prepared, "--out", out, *flags)
            return time.perf_counter() - started

        train_seconds = [train(seed) for seed in range(seeds // 2)]
        started = time.perf_counter()
        command = [sys.executable, "-c", COMPARE, prepared, os.path.join(folder, "comparison"), str(seeds), *sets]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        compare_seconds, first_steps = time.perf_counter() - started, json.loads(output.splitlines()[-1])
        train_seconds += [train(seed) for seed in range(seeds // 2, seeds)]
    total = sum(train_seconds)
    return Results(seeds, images, epochs, train_seconds, total, compare_seconds, compare_seconds / total, first_steps)


def show(results: Results) -> None:
    title = f"{results.trials} trials of {results.epochs} epochs on {results.images} images, one at a time"
    table = Table(title=title)
    for heading in ("", "seconds", "per trial"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, seconds in (("train commands", results.train_total), ("compare", results.compare_seconds)):
        table.add_row(name, f"{seconds:.1f}", f"{seconds / results.trials:.1f}")
    later = ", ".join(f"{seconds:.1f}" for seconds in results.first_steps)
    table.caption = f"compare / train commands: {results.ratio:.2f}; start of each trial to its first step: {later} s"
    Console().print(table)


if __name__ == "__main__":
    main()
