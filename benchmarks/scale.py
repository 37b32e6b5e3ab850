"""Memory and speed of the input as the data grows: 1, 4 and 16 times the pictures, from memory and from disk, and the plan of 10 million rows.

    python -m benchmarks.scale
    python -m benchmarks.scale --pictures 1000 --factors 1,4 --json scale.json

Each row is one epoch of augmented 128 px batches in a fresh Ray with a small object store. `processes` is the peak of what this program and all
of Ray's processes hold for themselves (USS), `object store` the peak that lies in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import numpy as np
import pandas as pd
import psutil
from rich.console import Console
from rich.table import Table

from animalclf import config as configuration
from animalclf.data import prepared_set, sampler
from animalclf.data.sampler import sampling_plan
from animalclf.prepare.split import split
from animalclf.utils import storage

STORED, SHARD_ROWS, CLASSES = 144, 1024, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000, help="pictures at factor 1 (default: 2,000, 124 MB)")
    parser.add_argument("--factors", default="1,4,16")
    parser.add_argument("--store", type=float, default=1.0, metavar="GB", help="object store (default: 1)")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the plan (default: 10 million)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    if arguments.one:
        what, *rest = arguments.one.split(":")
        print(json.dumps(planned(int(rest[0])) if what == "plan" else fed(rest[0], rest[1], arguments.store)))
        return
    figures: dict[str, Any] = {"input": [], "plan": one(arguments, f"plan:{arguments.rows}")}
    for factor in map(int, arguments.factors.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            write_set(folder, arguments.pictures * factor)
            for where in ("auto", "disk"):
                figures["input"].append({"factor": factor, "asked": where, **one(arguments, f"feed:{where}:{folder}")})
    show(figures)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=1)


def one(arguments: argparse.Namespace, task: str) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--one", task, "--store", str(arguments.store)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{task} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def write_set(root: str, count: int) -> None:
    """A prepared set of noise, `count` pictures of 144 px."""
    listed = []
    for number, first in enumerate(range(0, count, SHARD_ROWS)):
        rows = np.arange(first, min(first + SHARD_ROWS, count))
        images = np.random.default_rng(number).integers(0, 256, (len(rows), STORED, STORED, 3), np.uint8)
        prepared_set.write_shard(f"{root}/shard-{number:05d}.parquet", zip(rows, images, strict=True))
        listed.append({"file": f"shard-{number:05d}.parquet", "rows": len(rows)})
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
        "shards": listed,
    }
    storage.write_json(f"{root}/{prepared_set.INFO}", info)


def fed(where: str, root: str, store_gb: float) -> dict[str, Any]:
    """One epoch as the training receives it, and the peaks of memory meanwhile."""
    import ray

    from animalclf.cluster import start_local
    from animalclf.data.ray_loader import RayLoader, cache_images
    from animalclf.training.resources import choose_cache

    store = int(store_gb * 1e9)
    start_local(2, object_store_memory=store)
    prepared = prepared_set.open_prepared(root)
    in_memory, said = choose_cache(where, prepared)
    plan = sampling_plan(prepared, configuration.load("big_cnn"))
    peaks = {"processes": 0, "store": 0}
    over = threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not over.wait(0.5):
            held = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    held += process.memory_full_info().uss
                except psutil.NoSuchProcess:
                    continue
            used = ray.cluster_resources()["object_store_memory"] - ray.available_resources().get(
                "object_store_memory", 0
            )
            peaks["processes"], peaks["store"] = max(peaks["processes"], held), max(peaks["store"], int(used))

    watching = threading.Thread(target=watch)
    watching.start()
    started, rows = time.perf_counter(), 0
    loader = RayLoader(plan, cache_images(prepared, in_memory), 0, 1, [("train", 0)])
    for batch in loader.batches("train", 0):
        rows += len(np.array(batch["image"]))
    seconds = time.perf_counter() - started
    over.set()
    watching.join()
    assert rows == len(prepared.manifest)
    return {"pictures": rows, "bytes": prepared.pixel_bytes, "where": said, "images_per_s": rows / seconds, **peaks}


def planned(rows: int) -> dict[str, Any]:
    """Seconds of the split and of an epoch's plan, and the peak of memory with the manifest."""
    started = time.perf_counter()
    labels = np.random.default_rng(0).integers(0, CLASSES, rows)
    names = np.array([f"class{label}" for label in range(CLASSES)], object)
    manifest = pd.DataFrame({"label": names[labels], "group": np.arange(rows), "status": "ok", "split": ""})
    manifest["sha256"] = [f"{row:064x}" for row in range(rows)]
    made = time.perf_counter()
    parts = split(manifest, configuration.Data())
    divided = time.perf_counter()
    train = np.flatnonzero(np.asarray(parts) == "train")
    order = sampler.epoch_order(train, labels[train], "none", 0, 0)
    edges = sampler.batch_edges(len(order), 1024, 64)
    shuffled = time.perf_counter()
    assert len(np.unique(order)) == len(train) and edges[-1, -1] == len(train)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "rows": rows,
        "manifest_s": made - started,
        "split_s": divided - made,
        "shuffle_s": shuffled - divided,
        "peak_bytes": peak,
    }


def show(figures: dict[str, Any]) -> None:
    table = Table(title="one epoch of augmented 128 px batches, 2 cores", title_justify="left")
    for name in ("data", "pictures", "pictures are", "pictures/s", "processes, MB", "object store, MB"):
        table.add_column(name, justify="left" if name == "pictures are" else "right")
    for row in figures["input"]:
        memory = [f"{row[name] / 1e6:,.0f}" for name in ("processes", "store")]
        table.add_row(
            f"x {row['factor']}", f"{row['pictures']:,}", row["where"], f"{row['images_per_s']:,.0f}", *memory
        )
    made = figures["plan"]
    Console(width=120).print(table)
    Console(width=120).print(
        f"{made['rows']:,} rows: split {made['split_s']:.1f} s, shuffle and plan of an epoch {made['shuffle_s']:.1f} s, "
        f"peak {made['peak_bytes'] / 1e9:.1f} GB"
    )


if __name__ == "__main__":
    main()
