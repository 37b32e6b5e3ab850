"""How fast `prepare` is: against a bare loop on all cores that reads, decodes, hashes and resizes the same files and does nothing else.

    python -m benchmarks.prepare                              20,000 JPEG files of 300 x 225, stored at 144 px
    python -m benchmarks.prepare --pictures 4000 --json prepare.json

`prepare` also verifies, measures, computes signatures, looks for near-copies (in one line: only for identical files), splits, and writes shards and
manifest. "The whole command" is `animalclf prepare` with all its starts, in a Ray of its own on all cores. In the lines after it Ray is up and Ray
Data is imported, as the bare loop's libraries are; the first tasks of Ray's processes, which import everything, count in "with near-copies".
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from animalclf import config as configuration
from benchmarks.pictures import draw

SIZE = 144


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(folder, arguments.pictures, arguments.cores)
    show(figures)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=1)


def measure(folder: str, pictures: int, cores: int) -> dict[str, Any]:
    """Seconds of each; the bare loop runs before and after, and its mean counts, so that a machine whose speed drifts is fair to both."""
    import ray.data

    from animalclf.cluster import start_local

    photos = draw(f"{folder}/photos", pictures)
    bare_loop(photos, cores)  # the files and as much memory as all need are in the machine's memory then
    seconds = {"bare": bare_loop(photos, cores), "the whole command": whole_command(photos, f"{folder}/prepared")}
    start_local(cores)
    seconds["with near-copies"] = prepare_once(photos, f"{folder}/prepared")
    seconds["identical files only"] = prepare_once(photos, f"{folder}/prepared", near_duplicates=False)
    ray.shutdown()
    seconds["bare"] = (seconds["bare"] + bare_loop(photos, cores)) / 2
    ratios = {
        f"ratio_{name.replace(' ', '_')}": seconds["bare"] / each for name, each in seconds.items() if name != "bare"
    }
    return {"pictures": pictures, "cores": cores, "seconds": seconds, **ratios}


def prepare_once(photos: str, out: str, near_duplicates: bool = True) -> float:
    from animalclf.prepare.job import prepare

    started = time.perf_counter()
    prepare(photos, out, configuration.Data(stored_size=SIZE, near_duplicates=near_duplicates), progress=False)
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def whole_command(photos: str, out: str) -> float:
    started = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "ray_jobs.prepare",
        "--data",
        photos,
        "--out",
        out,
        "--set",
        f"data.stored_size={SIZE}",
    ]
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
    )
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def bare_loop(photos: str, cores: int) -> float:
    """Seconds of a process a core, each with its share of the files, the results left in its memory."""
    paths = sorted(str(path) for path in Path(photos).rglob("*.jpg"))

    def work(number: int) -> None:
        cv2.setNumThreads(1)
        mine = paths[number::cores]
        out = np.empty((len(mine), SIZE, SIZE, 3), np.uint8)
        for row, path in enumerate(mine):
            content = Path(path).read_bytes()
            hashlib.sha256(content).hexdigest()
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
            cv2.resize(image, (SIZE, SIZE), dst=out[row], interpolation=cv2.INTER_AREA)

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(number,)) for number in range(cores)]
    started = time.perf_counter()
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return time.perf_counter() - started


def show(figures: dict[str, Any]) -> None:
    title = f"{figures['pictures']:,} JPEG files of 300 x 225, stored at {SIZE} px, {figures['cores']} cores"
    table = Table(title=title, title_justify="left")
    for name in ("", "seconds", "pictures/s", "against the bare loop"):
        table.add_column(name, justify="left" if not name else "right")
    for name, seconds in figures["seconds"].items():
        what = "a bare loop" if name == "bare" else f"prepare, {name}"
        table.add_row(
            what,
            f"{seconds:.1f}",
            f"{figures['pictures'] / seconds:,.0f}",
            f"{figures['seconds']['bare'] / seconds:.0%}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
