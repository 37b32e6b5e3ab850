"""What the patches of animalclf/raycompat earn: commands with all of them, with each one left out, and on stock Ray, in turn.

    python -m benchmarks.stock_ray                    320 images prepared, a tiny training, each patch left out once
    python -m benchmarks.stock_ray --only stock --compare --repeat 5

Seconds of whole commands and of the start of a training, up to its first step; the median of --repeat rounds. What input earns is another
benchmark's: `ANIMALCLF_STOCK_RAY=start_next_task_soon python -m benchmarks.input --no-naive` against the same without the variable.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict

from rich.console import Console
from rich.table import Table

from animalclf.raycompat.patches import STOCK

PATCHES = [
    "look_for_node_often",
    "without_servers",
    "trainer_class",
    "start_next_task_soon",
    "without_coordinator",
    "without_statistics",
]
SETS = ["--set", "train.epochs=1", "--set", "train.batch_size=32", "--set", "model.input_size=76"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        default=",".join(["stock", *PATCHES]),
        metavar="NAMES",
        help="what is left out: stock (all), or names of patches",
    )
    parser.add_argument(
        "--compare", action="store_true", help="a comparison of four trainings too, which takes a minute"
    )
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    off = {"nothing": "", **{name: "1" if name == "stock" else name for name in arguments.only.split(",")}}
    seconds: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in off}
    with tempfile.TemporaryDirectory() as folder:
        command("", "demo", "--only-data", "--data", f"{folder}/demo", "--pictures", "320", "--test-pictures", "4")
        command("", "prepare", "--data", f"{folder}/demo", "--out", f"{folder}/prepared", "--limit", "32")
        for turn in range(arguments.repeat):
            for name, value in off.items():
                for what, taken in measure(value, folder, f"{folder}/{turn}-{name}", arguments.compare).items():
                    seconds[name][what].append(taken)
    table = Table(title=f"seconds, median of {arguments.repeat}", title_justify="left")
    for heading in ("left out", *seconds["nothing"]):
        table.add_column(heading)
    for name, columns in seconds.items():
        table.add_row(name, *(f"{statistics.median(values):.1f}" for values in columns.values()))
    Console(width=110).print(table)


def measure(off: str, folder: str, out: str, compare: bool) -> dict[str, float]:
    """Seconds of each command without the patches `off`, and of the start of the training."""
    taken = {"prepare": command(off, "prepare", "--data", f"{folder}/demo", "--out", f"{out}-prepared")[0]}
    small = ["--cpu", "--data", f"{folder}/prepared", *SETS]
    taken["train"], answer = command(off, "train", "--json", "--workers", "1", "--out", f"{out}-run", *small)
    taken["of which to the first step"] = json.loads(answer)["startup"]["total"]
    if compare:
        taken["compare"] = command(
            off, "compare", "--recipes", "big_cnn", "--seeds", "4", "--out", f"{out}-comparison", *small
        )[0]
    return taken


def command(off: str, *arguments: str) -> tuple[float, str]:
    """Seconds and standard output of an animalclf command that must not fail."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "animalclf.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, STOCK: off},
    )
    if done.returncode:
        sys.exit(f"animalclf {' '.join(arguments[:6])} failed:\n{done.stderr[-3000:]}")
    return time.perf_counter() - started, done.stdout


if __name__ == "__main__":
    main()
