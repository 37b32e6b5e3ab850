"""Memory and speed of the input as the data grows: 1, 4 and 16 times the images, from memory and from disk; and the
sampling plan of 1 and 10 million rows.

    python -m benchmarks.scale
    python -m benchmarks.scale --images 1000 --factors 1,4 --json scale.json --plot scale.svg

Each row is one epoch of augmented 128 px batches in a new Ray with a small object store. `processes` is the peak of the
private memory (USS) of this program and all of Ray's processes, `object store` the peak of its use. The exponents are
of the growth with the images or rows, between the smallest and the largest number; `--plot` draws the seconds. What
else the driver does: benchmarks/driver_steps.py.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import psutil
from rich.console import Console
from rich.table import Table

from animalclf import config as configuration
from animalclf.data import prepared_set, sampler
from animalclf.data.sampler import sampling_plan
from animalclf.data.shards import write_shard
from animalclf.prepare.split import split
from animalclf.utils import storage
from benchmarks.common import argument_parser, run, write_json
from benchmarks.growth import draw, text

STORED, SHARD_ROWS, CLASSES = 144, 1024, 10


@dataclass(frozen=True)
class Epoch:
    """One epoch of input, and the peaks of memory during it."""

    images: int
    bytes: int
    """Of the images."""
    source: str
    """Where the images are read from."""
    images_per_s: float
    processes: int
    """Bytes."""
    store: int
    """Bytes."""


@dataclass(frozen=True)
class Plan:
    """Split and sampling plan of a large set."""

    rows: int
    manifest_s: float
    split_s: float
    shuffle_s: float
    peak_bytes: int
    """With the manifest."""


@dataclass(frozen=True)
class Results:
    epochs: list[Epoch]
    plans: list[Plan]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=int, default=2000, help="images at factor 1 (default: 2,000, 124 MB)")
    parser.add_argument("--factors", default="1,4,16")
    parser.add_argument("--store", type=float, default=1.0, metavar="GB", help="object store (default: 1)")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1_000_000, 10_000_000], help="of the plan (default: 1 and 10 million)"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the results as this file (.svg, .png)")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        kind, parameter, folder = arguments.task.split(":", maxsplit=2)
        result = measure_plan(int(parameter)) if kind == "plan" else measure_epoch(parameter, folder, arguments.store)
        print(json.dumps(dataclasses.asdict(result)))
        return
    plans = [Plan(**run_task(arguments, f"plan:{rows}:")) for rows in sorted(arguments.rows)]
    epochs: list[Epoch] = []
    for factor in sorted(map(int, arguments.factors.split(","))):
        with tempfile.TemporaryDirectory() as folder:
            write_set(folder, arguments.images * factor)
            epochs += [Epoch(**run_task(arguments, f"epoch:{cache}:{folder}")) for cache in ("auto", "disk")]
    results = Results(epochs, plans)
    show(results)
    draw(arguments.plot, "seconds", "images or rows", lines_of(results))
    write_json(arguments.json, results)


def run_task(arguments: argparse.Namespace, task: str) -> dict[str, Any]:
    """The result of a measurement in another process: "plan:ROWS:" or "epoch:CACHE:FOLDER"."""
    command = [sys.executable, "-m", "benchmarks.scale", "--task", task, "--store", str(arguments.store)]
    return dict(json.loads(run(command).splitlines()[-1]))


def write_set(root: str, count: int) -> None:
    """Write a prepared set of noise: `count` images of 144 px."""
    shards = []
    for number, first in enumerate(range(0, count, SHARD_ROWS)):
        rows = np.arange(first, min(first + SHARD_ROWS, count))
        images = np.random.default_rng(number).integers(0, 256, (len(rows), STORED, STORED, 3), np.uint8)
        write_shard(f"{root}/shard-{number:05d}.parquet", zip(rows, images, strict=True))
        shards.append({"file": f"shard-{number:05d}.parquet", "rows": len(rows)})
    index = np.arange(count)
    names = [f"class{label}" for label in range(CLASSES)]
    table = {
        "path": [f"{i}.jpg" for i in index],
        "label": [names[i % CLASSES] for i in index],
        "split": "train",
        "status": "ok",
    }
    manifest = pd.DataFrame({**table, "shard": index // SHARD_ROWS, "row": index % SHARD_ROWS})
    storage.write_table(f"{root}/{prepared_set.MANIFEST}", manifest)
    settings = configuration.to_dict(configuration.Data(stored_size=STORED))
    info = {
        "format": prepared_set.FORMAT,
        "classes": names,
        "stored_size": STORED,
        "fingerprint": f"noise-{count}",
        "config": settings,
        "shards": shards,
    }
    storage.write_json(f"{root}/{prepared_set.INFO}", info)


def measure_epoch(cache: str, root: str, store_gb: float) -> Epoch:
    """Read one epoch as the training does."""
    import ray

    from animalclf.cluster import start_local
    from animalclf.data.ray_loader import RayLoader, cache_images
    from animalclf.training.resources import choose_cache

    store = int(store_gb * 1e9)
    start_local(2, object_store_memory=store)
    prepared = prepared_set.open_prepared(root)
    in_memory, explanation = choose_cache(cache, prepared)
    plan = sampling_plan(prepared, configuration.load("big_cnn"))
    peaks = {"processes": 0, "store": 0}
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(0.5):
            capacity = ray.cluster_resources()["object_store_memory"]
            store_use = int(capacity - ray.available_resources().get("object_store_memory", 0))
            peaks["processes"] = max(peaks["processes"], private_memory())
            peaks["store"] = max(peaks["store"], store_use)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, rows = time.perf_counter(), 0
    loader = RayLoader(plan, cache_images(prepared, in_memory), 0, 1, [("train", 0)])
    for batch in loader.batches("train", 0):
        rows += len(np.array(batch["image"]))
    seconds = time.perf_counter() - started
    finished.set()
    watcher.join()
    assert rows == len(prepared.manifest)
    return Epoch(rows, prepared.pixel_bytes, explanation, rows / seconds, peaks["processes"], peaks["store"])


def private_memory() -> int:
    """Bytes (USS) of this process and its children."""
    total, parent = 0, psutil.Process()
    for process in (parent, *parent.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().uss
    return total


def measure_plan(rows: int) -> Plan:
    """Split `rows` rows, and plan an epoch of them."""
    started = time.perf_counter()
    labels = np.random.default_rng(0).integers(0, CLASSES, rows)
    names = np.array([f"class{label}" for label in range(CLASSES)], object)
    manifest = pd.DataFrame({"label": names[labels], "group": np.arange(rows), "status": "ok", "split": ""})
    manifest["sha256"] = [f"{row:064x}" for row in range(rows)]
    manifest_done = time.perf_counter()
    parts = split(manifest, configuration.Data())
    split_done = time.perf_counter()
    train = np.flatnonzero(np.asarray(parts) == "train")
    order = sampler.epoch_order(train, labels[train], "none", 0, 0)
    edges = sampler.batch_edges(len(order), 1024, 64)
    plan_done = time.perf_counter()
    assert len(np.unique(order)) == len(train) and edges[-1, -1] == len(train)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Plan(rows, manifest_done - started, split_done - manifest_done, plan_done - split_done, peak)


def lines_of(results: Results) -> dict[str, list[tuple[int, float]]]:
    """Seconds over the images of an epoch, or the rows of a plan."""
    sources = {"memory": lambda row: row.source.endswith("in memory"), "disk": lambda row: "from disk" in row.source}
    lines = {
        f"epoch from {name}": [(row.images, row.images / row.images_per_s) for row in filter(fits, results.epochs)]
        for name, fits in sources.items()
    }
    lines["split"] = [(plan.rows, plan.split_s) for plan in results.plans]
    lines["plan of an epoch"] = [(plan.rows, plan.shuffle_s) for plan in results.plans]
    return {name: line for name, line in lines.items() if line}


def show(results: Results) -> None:
    table = Table(title=f"one epoch of augmented 128 px batches, {os.cpu_count()} cores", title_justify="left")
    for heading in ("images", "source", "images/s", "processes, MB", "object store, MB"):
        table.add_column(heading, justify="left" if heading == "source" else "right")
    for row in results.epochs:
        memory = [f"{count / 1e6:,.0f}" for count in (row.processes, row.store)]
        table.add_row(f"{row.images:,}", row.source, f"{row.images_per_s:,.0f}", *memory)
    console = Console(width=120)
    console.print(table)
    for plan in results.plans:
        console.print(
            f"{plan.rows:,} rows: split {plan.split_s:.1f} s, plan of an epoch {plan.shuffle_s:.2f} s, "
            f"peak {plan.peak_bytes / 1e9:.1f} GB"
        )
    for name, line in lines_of(results).items():
        if exponent := text(line):
            console.print(f"{name}: seconds grow with the power of {exponent}")


if __name__ == "__main__":
    main()
