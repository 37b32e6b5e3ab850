"""What the framework costs: `animalclf train` on Ray workers against the same loop in plain PyTorch, fed from memory, on the same pictures.

    python -m benchmarks.overhead                       big CNN, 1, 2 and 4 workers
    python -m benchmarks.overhead --workers 1 --json overhead.json

Steady state: the first epoch is left out of pictures/s. Start-up is split into its parts. The two sides alternate, --repeat times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from rich.console import Console
from rich.table import Table

PLAIN = """
import json, sys, time
from animalclf import config as configuration
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.data.prepared_set import open_prepared
from animalclf.runs import Run
from animalclf.training.distributed import RankContext, set_up_cpu
from animalclf.training.train import train
data, out, sets = sys.argv[1], sys.argv[2], sys.argv[3:]
config, prepared = configuration.load("big_cnn", configuration.parse_sets(sets)), open_prepared(data)
set_up_cpu(0, 1)
pictures = load_images(prepared)
train(config, prepared, Run(out), lambda s, passes: MemoryLoader(s, pictures), RankContext())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2,4", help="numbers of Ray workers (default: 1,2,4)")
    parser.add_argument("--pictures", type=int, default=160, help="demo pictures drawn (default: 160)")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--input-size", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    figures = measure(arguments)
    show(figures)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=1)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the plain loop and the commands in turn; the figures of both."""
    counts = [int(text) for text in arguments.workers.split(",")]
    sets = [
        f"train.epochs={arguments.epochs}",
        f"train.batch_size={arguments.batch_size}",
        f"model.input_size={arguments.input_size}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "animalclf.cli"]
        run(
            [
                *command,
                "demo",
                "--only-data",
                "--data",
                f"{folder}/demo",
                "--pictures",
                str(arguments.pictures),
                "--test-pictures",
                "10",
            ]
        )
        run([*command, "prepare", "--data", f"{folder}/demo", "--out", f"{folder}/prepared"])
        plain: list[dict[str, float]] = []
        on_ray: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
        for turn in range(arguments.repeat):
            out = f"{folder}/plain{turn}"
            started = time.time()
            run([sys.executable, "-c", PLAIN, f"{folder}/prepared", out, *sets])
            plain.append(figures_of(out, time.time() - started))
            for count in counts:
                out = f"{folder}/ray{turn}-{count}"
                flags = [flag for text in sets for flag in ("--set", text)]
                started = time.time()
                answer = run(
                    [
                        *command,
                        "train",
                        "--json",
                        "--cpu",
                        "--data",
                        f"{folder}/prepared",
                        "--out",
                        out,
                        "--workers",
                        str(count),
                        *flags,
                    ]
                )
                startup = {f"startup_{name}_s": seconds for name, seconds in json.loads(answer)["startup"].items()}
                on_ray[count].append({**figures_of(out, time.time() - started), **startup})
    base = statistics.median(each["images_per_s"] for each in plain)
    rows = []
    for count, each in on_ray.items():
        row: dict[str, Any] = {name: statistics.median(one[name] for one in each) for name in each[0]}
        rows.append(
            {
                "workers": count,
                **row,
                "ratio": statistics.median(
                    a["images_per_s"] / b["images_per_s"] for a, b in zip(each, plain, strict=True)
                ),
            }
        )
    return {
        "pictures": arguments.pictures,
        "epochs": arguments.epochs,
        "plain": {"images_per_s": base, "seconds": plain[0]["seconds"]},
        "ray": rows,
    }


def figures_of(out: str, seconds: float) -> dict[str, float]:
    """Steady pictures/s and share of waiting (epochs after the first), and what the whole command took beside its epochs."""
    with open(f"{out}/metrics.jsonl") as file:
        history = [json.loads(line) for line in file]
    steady = history[1:]
    busy = sum(row["train_seconds"] for row in steady)
    return {
        "images_per_s": sum(row["train_rows"] for row in steady) / busy,
        "wait_fraction": sum(row["wait_fraction"] * row["train_seconds"] for row in steady) / busy,
        "seconds": seconds,
        "beside_epochs_s": seconds - sum(row["seconds"] for row in history),
    }


def run(command: list[str]) -> str:
    """Standard output of a command that must not fail."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command[:6])} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def show(figures: dict[str, Any]) -> None:
    table = Table(
        title="the whole `train` command against the same loop in plain PyTorch, fed from memory", title_justify="left"
    )
    for name in ("", "pictures/s", "against plain", "waiting for data", "command, s", "beside the epochs, s"):
        table.add_column(name)
    table.add_row(
        "plain PyTorch, 1 process",
        f"{figures['plain']['images_per_s']:.1f}",
        "1.00",
        "",
        f"{figures['plain']['seconds']:.0f}",
        "",
    )
    for row in figures["ray"]:
        name = f"animalclf train, {row['workers']} worker{'s' if row['workers'] > 1 else ''}"
        cells = [
            f"{row['images_per_s']:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['wait_fraction']:.1%}",
            f"{row['seconds']:.0f}",
            f"{row['beside_epochs_s']:.0f}",
        ]
        table.add_row(name, *cells)
    Console(width=120).print(table)
    for row in figures["ray"]:
        parts = ", ".join(f"{name[8:-2]} {row[name]:.1f} s" for name in row if name.startswith("startup_"))
        Console(width=120).print(
            f"start to first step, {row['workers']} worker{'s' if row['workers'] > 1 else ''}: {parts}"
        )


if __name__ == "__main__":
    main()
