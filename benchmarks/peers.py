"""Speed of the input against other libraries that decode once: torch's DataLoader over an array, MosaicML Streaming,
LitData, Ray Data, FFCV, and tf.data with cache(), on the same stored images, in one run.

    python -m benchmarks.peers --peers-python PYTHON         4,000 images; PYTHON of an environment with the libraries
    python -m benchmarks.peers --peers MosaicML LitData      only these: a part of the table, with its own animalclf
    python -m benchmarks.peers --s3                          from a bucket of a local S3 server (moto: the test extra)

A library that PYTHON lacks is skipped. Each contestant gets the images of one prepared set, decoded and resized, and
makes shuffled batches of 128 images at 128 px by a random affine warp (rotation, shift, zoom, mirroring; animalclf: the
augmentation of `big_cnn`, with rows in an order that is the same at any number of workers) on the same cores, one
after another. The warp is OpenCV's, except for FFCV (numba) and `tf.data-warp` (TensorFlow's own operation). Epochs
after the first --settle count; the first epoch begins when the stored images are opened, and its seconds are shown
apart. CPU seconds are those of all processes of a contestant, so "images per CPU second" is its speed per core. The
bare loop is the limit: one process per core, each doing nothing but OpenCV's warp of images in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from animalclf.data.loader import load_images
from animalclf.raycompat.patches import OWN_RAY_VARIABLE
from animalclf.utils.process_variables import PROCESS_VARIABLES
from benchmarks import input as input_benchmark
from benchmarks.common import argument_parser, write_json
from benchmarks.images import write_noise
from benchmarks.peer_loaders import FROM_BUCKET, LOADERS, NOT_INSTALLED
from benchmarks.s3 import BUCKET, s3_server

SCRIPT = Path(__file__).with_name("peer_loaders.py")
OURS, LIMIT = "animalclf", "bare OpenCV loop"
LONGER = 4
"""Of animalclf this number of times --epochs is timed, because it makes batches across the end of an epoch: one may be
ready when the clock starts."""


@dataclass(frozen=True)
class Results:
    images: int
    cores: int
    images_per_s: dict[str, list[float]]
    """Of the timed epochs, by contestant, one per round; the same for the next two."""
    images_per_cpu_s: dict[str, list[float]]
    """CPU time of all processes of the contestant, so that other programs disturb it less."""
    first_epoch_s: dict[str, list[float]]
    skipped: dict[str, str]
    """Why a library is missing."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--settle", type=int, default=6, help="untimed epochs of each contestant (default: 6)")
    parser.add_argument("--epochs", type=int, default=12, help="timed epochs of each library (default: 12)")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--peers-python", default=sys.executable, metavar="PYTHON")
    parser.add_argument(
        "--peers", nargs="+", choices=LOADERS, metavar="NAME", help=f"only these of {', '.join(LOADERS)}"
    )
    parser.add_argument("--s3", action="store_true", help=f"read from a bucket: {', '.join(FROM_BUCKET)}")
    arguments = parser.parse_args()
    if not arguments.peers:
        arguments.peers = FROM_BUCKET if arguments.s3 else list(LOADERS)
    if arguments.s3 and (others := set(arguments.peers) - set(FROM_BUCKET)):
        parser.error(f"--s3 has {', '.join(FROM_BUCKET)}, not {', '.join(sorted(others))}")
    with tempfile.TemporaryDirectory() as folder, s3_server() if arguments.s3 else contextlib.nullcontext():
        results = measure(arguments, folder)
    show(results, arguments.s3)
    write_json(arguments.json, results)


def measure(arguments: argparse.Namespace, folder: str) -> Results:
    import ray

    from animalclf.cluster import start_local

    photos, cores = write_noise(f"{folder}/photos", arguments.images), arguments.cores
    results = Results(arguments.images, cores, {}, {}, {}, {})
    root = BUCKET if arguments.s3 else folder
    for _ in range(arguments.repeat):
        start_local(cores)
        prepared, _ = input_benchmark.prepare_once(photos, f"{root}/prepared")
        ours = input_benchmark.ours(prepared, arguments.settle, LONGER * arguments.epochs)
        np.save(f"{folder}/images.npy", np.stack(load_images(prepared).views(np.arange(arguments.images))))
        ray.shutdown()  # its memory and processes are not in the way of the others
        add(results, OURS, ours)
        add(results, LIMIT, {**input_benchmark.bare_loop(prepared, cores), "first_epoch_s": 0.0})
        for name in arguments.peers:
            run_peer(results, name, arguments, f"{folder}/images.npy")
    return results


def run_peer(results: Results, name: str, arguments: argparse.Namespace, file: str) -> None:
    """Add the measurement of a library, or why there is none."""
    variables = {*PROCESS_VARIABLES, OWN_RAY_VARIABLE, "PYTHONPATH"}
    environment = {key: value for key, value in os.environ.items() if key not in variables}
    python = sys.executable if name == "Ray" else arguments.peers_python
    numbers = map(str, (arguments.settle, arguments.epochs, arguments.cores))
    command = [python, "-P", str(SCRIPT), name, file, *numbers, *([BUCKET] if arguments.s3 else [])]
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    if process.returncode == NOT_INSTALLED:
        results.skipped[name] = "not installed"
    elif process.returncode:
        results.skipped[name] = (process.stderr.strip().splitlines() or ["failed"])[-1]
    else:
        measured = json.loads(process.stdout.strip().splitlines()[-1])
        epochs = arguments.settle + arguments.epochs
        if measured["rows"] != epochs * arguments.images:
            results.skipped[name] = f"{measured['rows']} images in {epochs} epochs of {arguments.images}"
        add(results, name, measured)


def add(results: Results, name: str, measured: dict[str, float]) -> None:
    for column in ("images_per_s", "images_per_cpu_s", "first_epoch_s"):
        getattr(results, column).setdefault(name, []).append(measured[column])


def show(results: Results, s3: bool) -> None:
    place = " in a bucket" if s3 else ""
    title = f"{results.images:,} stored images{place} to augmented batches, {results.cores} cores, later epochs"
    table = Table(title=title, title_justify="left", caption="ratios are animalclf's speed over the other's, by round")
    for heading in ("", "images/s", "ratios", "images per CPU second", "ratios", "first epoch, s"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in results.images_per_s:
        cells = []
        for speeds in (results.images_per_s, results.images_per_cpu_s):
            rounds = ratios(speeds, name)
            each = f" ({', '.join(f'{ratio:.2f}' for ratio in rounds)})" if len(rounds) > 1 else ""
            cells += [f"{statistics.median(speeds[name]):,.0f}", f"{statistics.median(rounds):.2f}{each}"]
        first = statistics.median(results.first_epoch_s[name])
        table.add_row(name, *cells, f"{first:.2f}" if first else "")
    console = Console(width=120)
    console.print(table)
    for name, why in results.skipped.items():
        console.print(f"{name} is skipped: {why}", markup=False)


def ratios(speeds: dict[str, list[float]], name: str) -> list[float]:
    """animalclf's speed over that of `name`, by round."""
    return [own / other for own, other in zip(speeds[OURS], speeds[name], strict=False)]


if __name__ == "__main__":
    main()
