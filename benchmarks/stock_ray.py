"""Gain of each patch in animalclf/raycompat: commands with all patches, without one of them, and on stock Ray, in turn.

    python -m benchmarks.stock_ray                    320 images prepared, a tiny training, each patch left out once
    python -m benchmarks.stock_ray --only stock --compare --repeat 5

Seconds and CPU seconds (see usage.py) of whole commands, and seconds of the start of a training, up to its first step;
the median of --repeat rounds. The gain in images/s is measured by `ANIMALCLF_STOCK_RAY=schedule_tasks_sooner python -m
benchmarks.input --no-naive`, against the same without the variable.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict

from rich.console import Console
from rich.table import Table

from animalclf.raycompat.patches import STOCK_RAY_VARIABLE
from benchmarks.common import animalclf, argument_parser, write_json
from benchmarks.images import write_demo
from benchmarks.usage import Watch

PATCHES = [
    "poll_node_start",
    "skip_servers",
    "skip_dashboard_agent",
    "end_at_once",
    "in_process_trainer",
    "skip_synchronization_actor",
    "schedule_tasks_sooner",
    "skip_autoscaling_actor",
    "skip_statistics_actor",
    "skip_location_actor",
]
SETS = ["--set", "train.epochs=1", "--set", "train.batch_size=32", "--set", "model.input_size=76"]


def main() -> None:
    parser = argument_parser(__doc__)
    everything = ",".join(["stock", *PATCHES])
    parser.add_argument(
        "--only", default=everything, metavar="NAMES", help="left out: stock (all), or names of patches"
    )
    parser.add_argument(
        "--compare", action="store_true", help="also a comparison of four trainings, which takes a minute"
    )
    parser.add_argument("--images", type=int, default=320, help="images of the demo set (default: 320)")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    switches = {"nothing": "", **{name: "1" if name == "stock" else name for name in arguments.only.split(",")}}
    rounds: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in switches}
    with tempfile.TemporaryDirectory() as folder:
        photos, prepared = write_demo(f"{folder}/demo", arguments.images), f"{folder}/prepared"
        animalclf(
            "prepare",
            "--recipe",
            "big_cnn",
            "--data",
            photos,
            "--out",
            prepared,
            "--limit",
            "32",
            **{STOCK_RAY_VARIABLE: ""},
        )
        for turn in range(arguments.repeat):
            for name, switch in switches.items():
                taken = measure(switch, photos, prepared, f"{folder}/{turn}-{name}", arguments.compare)
                for part, seconds in taken.items():
                    rounds[name][part].append(seconds)
    medians = {
        name: {part: statistics.median(seconds) for part, seconds in parts.items()} for name, parts in rounds.items()
    }
    table = Table(title=f"seconds, median of {arguments.repeat}", title_justify="left")
    for heading in ("left out", *medians["nothing"]):
        table.add_column(heading)
    for name, parts in medians.items():
        table.add_row(name, *(f"{seconds:.1f}" for seconds in parts.values()))
    Console(width=110).print(table)
    write_json(arguments.json, medians)


def measure(switch: str, photos: str, prepared: str, out: str, compare: bool) -> dict[str, float]:
    """Seconds and CPU seconds of each command, and seconds of the start of the training, with
    ANIMALCLF_STOCK_RAY=`switch`."""
    seconds: dict[str, float] = {}

    def timed(*arguments: str) -> str:
        with Watch(memory=False) as watch:
            stdout = animalclf(*arguments, **{STOCK_RAY_VARIABLE: switch})
        command = arguments[0]
        seconds[command], seconds[f"{command}, CPU"] = watch.usage.seconds, watch.usage.cpu_seconds
        return stdout

    timed("prepare", "--recipe", "big_cnn", "--data", photos, "--out", f"{out}-prepared")
    small = ["--cpu", "--data", prepared, *SETS]
    stdout = timed("train", "--recipe", "big_cnn", "--json", "--workers", "1", "--out", f"{out}-run", *small)
    seconds["train, to the first step"] = json.loads(stdout)["startup"]["total"]
    if compare:
        trials = ["--recipes", "big_cnn", "--seeds", "4", "--out", f"{out}-comparison"]
        timed("compare", *trials, *small)
    return seconds


if __name__ == "__main__":
    main()
