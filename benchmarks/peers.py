"""Speed of the input against other libraries that decode once: tf.data with cache(), LitData, MosaicML Streaming and
Ray Data, on the same stored images, in one run.

    python -m benchmarks.peers --peers-python PYTHON     4,000 images; PYTHON of an environment with the libraries
    python -m benchmarks.peers --images 1000 --json peers.json

A library that PYTHON lacks is skipped. Each contestant gets the images of one prepared set, decoded and resized, and
makes shuffled batches of 128 images at 128 px by a random affine warp (rotation, shift, zoom, mirroring; animalclf: the
augmentation of `big_cnn`, with rows in an order that is the same at any number of workers) on the same cores, one after
another. Epochs after the first count.
"""

from __future__ import annotations

import argparse
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
from animalclf.utils.malloc import MALLOC_VARIABLES
from benchmarks import input as input_benchmark
from benchmarks.common import argument_parser, write_json
from benchmarks.images import write_noise
from benchmarks.peer_loaders import LOADERS, NOT_INSTALLED

SCRIPT = Path(__file__).with_name("peer_loaders.py")
OURS = "animalclf"


@dataclass(frozen=True)
class Results:
    images: int
    cores: int
    images_per_s: dict[str, list[float]]
    """Of the epochs after the first, by contestant, one per round."""
    first_batch_s: dict[str, list[float]]
    skipped: dict[str, str]
    """Why a library is missing."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=4, help="timed epochs of each library")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--peers-python", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--peers", nargs="+", choices=LOADERS, default=list(LOADERS), metavar="NAME", help="only these")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(arguments, folder)
    show(results)
    write_json(arguments.json, results)


def measure(arguments: argparse.Namespace, folder: str) -> Results:
    import ray

    from animalclf.cluster import start_local

    photos, cores = write_noise(f"{folder}/photos", arguments.images), arguments.cores
    results = Results(arguments.images, cores, {}, {}, {})
    for _ in range(arguments.repeat):
        start_local(cores)
        prepared, _ = input_benchmark.prepare_once(photos, f"{folder}/prepared")
        ours = input_benchmark.ours(prepared, settle=6, epochs=16)
        np.save(f"{folder}/images.npy", np.stack(load_images(prepared).views(np.arange(arguments.images))))
        ray.shutdown()  # its memory and processes are not in the way of the others
        add(results, OURS, ours)
        for name in arguments.peers:
            run_peer(results, name, arguments, f"{folder}/images.npy")
    return results


def run_peer(results: Results, name: str, arguments: argparse.Namespace, file: str) -> None:
    """Add the measurement of a library, or why there is none."""
    variables = {*MALLOC_VARIABLES, OWN_RAY_VARIABLE, "PYTHONPATH"}
    environment = {key: value for key, value in os.environ.items() if key not in variables}
    python = sys.executable if name == "Ray Data" else arguments.peers_python
    command = [python, "-P", str(SCRIPT), name, file, str(arguments.epochs), str(arguments.cores)]
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    if process.returncode == NOT_INSTALLED:
        results.skipped[name] = "not installed"
    elif process.returncode:
        results.skipped[name] = (process.stderr.strip().splitlines() or ["failed"])[-1]
    else:
        measured = json.loads(process.stdout.strip().splitlines()[-1])
        if measured["rows"] != arguments.epochs * arguments.images:
            results.skipped[name] = f"{measured['rows']} images in {arguments.epochs} epochs of {arguments.images}"
        add(results, name, measured)


def add(results: Results, name: str, measured: dict[str, float]) -> None:
    results.images_per_s.setdefault(name, []).append(measured["images_per_s"])
    results.first_batch_s.setdefault(name, []).append(measured["first_batch_s"])


def show(results: Results) -> None:
    title = f"{results.images:,} stored images to augmented batches, {results.cores} cores, epochs after the first"
    table = Table(title=title, title_justify="left")
    for heading in ("", "images/s", "images/s per core", "animalclf is faster by", "first batch, s"):
        table.add_column(heading, justify="right" if heading else "left")
    ours = results.images_per_s[OURS]
    for name, speeds in results.images_per_s.items():
        speed = statistics.median(speeds)
        ratio = statistics.median(own / other for own, other in zip(ours, speeds, strict=False))
        first = statistics.median(results.first_batch_s[name])
        table.add_row(name, f"{speed:,.0f}", f"{speed / results.cores:,.0f}", f"{ratio:.2f}", f"{first:.2f}")
    console = Console(width=120)
    console.print(table)
    for name, why in results.skipped.items():
        console.print(f"{name} is skipped: {why}", markup=False)


if __name__ == "__main__":
    main()
