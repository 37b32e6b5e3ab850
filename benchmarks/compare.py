"""What scheduling costs: six short trials by `compare`, one at a time, against the six `train` commands one after another.

    python -m benchmarks.compare                                  the demo recipe with six seeds
    python -m benchmarks.compare --seeds 3 --epochs 4 --json compare.json

Both sides start from the same prepared pictures and count everything: Python's start, Ray's, imports, training, evaluation, shutdown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from rich.console import Console
from rich.table import Table

COMPARE = """
import sys
from animalclf import cluster
from animalclf.config import parse_sets
from animalclf.tuning.compare import compare
from animalclf.tuning.spec import build_spec, comparison_tree
data, out, seeds, sets = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
spec = build_spec(comparison_tree(recipes=["demo"], seeds=seeds, set=parse_sets(sets)))
answer = compare(spec, data, out, max_concurrent=1)
cluster.leave_ray()
sys.exit(len(answer.trials) - len(answer.runs))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6, help="trials (default: 6)")
    parser.add_argument("--pictures", type=int, default=160, help="demo pictures drawn (default: 160)")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    figures = measure(arguments.seeds, arguments.pictures, arguments.epochs)
    show(figures)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=1)


def measure(seeds: int, pictures: int, epochs: int) -> dict[str, Any]:
    """Seconds of both sides, and their ratio. The commands run half before and half after the comparison, so that a machine whose speed drifts is
    fair to both."""
    with tempfile.TemporaryDirectory() as folder:
        photos, data = os.path.join(folder, "photos"), os.path.join(folder, "prepared")
        _timed(
            [
                "-m",
                "animalclf.cli",
                "demo",
                "--only-data",
                "--data",
                photos,
                "--pictures",
                str(pictures),
                "--test-pictures",
                "10",
            ]
        )
        _timed(["-m", "animalclf.cli", "prepare", "--data", photos, "--out", data, "--recipe", "demo"])

        def train(seed: int) -> float:
            sets = [f"seed={seed}", f"train.epochs={epochs}"]
            flags = [flag for text in sets for flag in ("--set", text)]
            return _timed(
                [
                    "-m",
                    "animalclf.cli",
                    "train",
                    "--recipe",
                    "demo",
                    "--data",
                    data,
                    "--out",
                    os.path.join(folder, f"run-{seed}"),
                    *flags,
                ]
            )

        alone = [train(seed) for seed in range(seeds // 2)]
        together = _timed(
            ["-c", COMPARE, data, os.path.join(folder, "comparison"), str(seeds), f"train.epochs={epochs}"]
        )
        alone += [train(seed) for seed in range(seeds // 2, seeds)]
    return {"trials": seeds, "pictures": pictures, "epochs": epochs, "train_seconds": alone, "train_total": sum(alone), "compare_seconds": together,
            "ratio": together / sum(alone)}  # fmt: skip


def _timed(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def show(figures: dict[str, Any]) -> None:
    table = Table(
        title=f"{figures['trials']} trials of {figures['epochs']} epochs on {figures['pictures']} pictures, one at a time"
    )
    for heading in ("", "seconds", "a trial"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, key in (("train commands", "train_total"), ("compare", "compare_seconds")):
        table.add_row(name, f"{figures[key]:.1f}", f"{figures[key] / figures['trials']:.1f}")
    table.caption = f"compare / train commands: {figures['ratio']:.2f}"
    Console().print(table)


if __name__ == "__main__":
    main()
