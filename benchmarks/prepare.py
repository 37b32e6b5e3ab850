"""Speed of `prepare`, against a bare loop on all cores that only reads, decodes, hashes and resizes the same files.

    python -m benchmarks.prepare                              20,000 JPEG files of 300 x 225, stored at 144 px
    python -m benchmarks.prepare --images 4000 --json prepare.json

`prepare` also verifies and measures, computes signatures, finds near-duplicates (in one row: only identical files),
splits, and writes shards and manifest. "the whole command" includes the start of Python and Ray on all cores.
In the rows after it Ray runs and Ray Data is imported, as the libraries of the bare loop are; the first tasks of Ray's
processes, with their imports, count in "with near-duplicates".
"""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from animalclf import config as configuration
from benchmarks.common import argument_parser, write_json
from benchmarks.images import write_noise

SIZE = 144


@dataclass(frozen=True)
class Results:
    images: int
    cores: int
    bare_seconds: float
    seconds: dict[str, float]
    """Of `prepare`, by variant."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(folder, arguments.images, arguments.cores)
    show(results)
    write_json(arguments.json, {**dataclasses.asdict(results), "ratios": ratios(results)})


def measure(folder: str, images: int, cores: int) -> Results:
    """The bare loop runs before and after `prepare`, and the mean counts, so that a drift of the machine's speed
    affects both."""
    import ray.data

    from animalclf.cluster import start_local

    photos, out = write_noise(f"{folder}/photos", images), f"{folder}/prepared"
    bare_loop(photos, cores)  # not timed: afterwards the files are in the page cache
    bare_before = bare_loop(photos, cores)
    seconds = {"the whole command": whole_command(photos, out)}
    start_local(cores)
    seconds["with near-duplicates"] = prepare_once(photos, out)
    seconds["identical files only"] = prepare_once(photos, out, near_duplicates=False)
    ray.shutdown()
    return Results(images, cores, (bare_before + bare_loop(photos, cores)) / 2, seconds)


def ratios(results: Results) -> dict[str, float]:
    """Speed of each variant of `prepare` as a fraction of the bare loop's."""
    return {name: results.bare_seconds / seconds for name, seconds in results.seconds.items()}


def prepare_once(photos: str, out: str, near_duplicates: bool = True) -> float:
    from animalclf.prepare.job import prepare

    config = configuration.Data(stored_size=SIZE, near_duplicates=near_duplicates)
    started = time.perf_counter()
    prepare(photos, out, config, progress=False)
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def whole_command(photos: str, out: str) -> float:
    command = [sys.executable, "-m", "ray_jobs.prepare", "--data", photos, "--out", out, "--recipe", "big_cnn"]
    command += ["--set", f"data.stored_size={SIZE}"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def bare_loop(photos: str, cores: int) -> float:
    """Seconds of one process per core, each with its part of the files; the results stay in its memory."""
    paths = sorted(str(path) for path in Path(photos).rglob("*.jpg"))

    def work(number: int) -> None:
        cv2.setNumThreads(1)
        part = paths[number::cores]
        images = np.empty((len(part), SIZE, SIZE, 3), np.uint8)
        for row, path in enumerate(part):
            content = Path(path).read_bytes()
            hashlib.sha256(content).hexdigest()
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
            cv2.resize(image, (SIZE, SIZE), dst=images[row], interpolation=cv2.INTER_AREA)

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(number,)) for number in range(cores)]
    started = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return time.perf_counter() - started


def show(results: Results) -> None:
    title = f"{results.images:,} JPEG files of 300 x 225, stored at {SIZE} px, {results.cores} cores"
    table = Table(title=title, title_justify="left")
    for heading in ("", "seconds", "images/s", "against the bare loop"):
        table.add_column(heading, justify="right" if heading else "left")
    rows = {"bare loop": results.bare_seconds}
    rows |= {f"prepare, {name}": seconds for name, seconds in results.seconds.items()}
    for name, seconds in rows.items():
        speed = f"{results.images / seconds:,.0f}"
        table.add_row(name, f"{seconds:.1f}", speed, f"{results.bare_seconds / seconds:.0%}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
