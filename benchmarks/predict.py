"""`predict` against a plain PyTorch loop over the same files with the same model, its start, and its memory.

    ANIMALCLF_SAMPLE_DATA=... python -m benchmarks.predict --run runs/quick --repeat 3
    ANIMALCLF_SAMPLE_DATA=... python -m benchmarks.predict --run RUN --side 32 --memory 10000 100000

The images are hard links to copies of ANIMALCLF_SAMPLE_DATA/animals10_sample. The start is the whole command on one
image. The speed, of the command and of the loop, is that of the other images: (images - 1) / (seconds of all - seconds
of one).

The loop: a DataLoader whose worker processes decode and resize as `predict`, the same batches of 64 files, the model in
inference mode, in channels_last and in the precision of `predict`, after a batch that warms it up. The numbers of
worker processes and of threads are the fastest of SETTINGS on the first images. Its probabilities are compared with
those of `predict`, which also computes `known_score` and writes its files.

The memory is the peak of private memory (benchmarks/usage.py): of the command's own process, of the process with the
model, and of all. Many images take a run that is fast: the small network of benchmarks/large_set.py with `--side 32`,
which makes the files squares of that side. The driver holds a row of each image; what it takes for one is shown.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from animalclf.config import Config
from animalclf.inference.images import model_input
from animalclf.inference.probabilities import uses_bf16
from animalclf.predictions import class_probabilities
from animalclf.training import checkpoint
from animalclf.training.distributed import set_up_cpu
from benchmarks.common import animalclf, argument_parser, write_json
from benchmarks.usage import Usage, Watch

BATCH = 64
SETTINGS = ((1, 1), (1, 2), (2, 1))  # worker processes, threads of PyTorch
TRIAL_IMAGES = 256
TOLERANCE = 1e-3  # of a probability


@dataclass(frozen=True)
class Round:
    start: float
    """Seconds of the command on one image; next, CPU seconds of all its processes."""
    start_cpu: float
    predict: float
    """Images/s after it; next, those of the loop."""
    loop: float
    difference: float
    """The largest of a probability."""

    @property
    def ratio(self) -> float:
        return self.predict / self.loop


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--run", required=True, help="a run folder")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--side", type=int, help="of the files, pixels (default: as they are)")
    parser.add_argument("--memory", type=int, nargs="*", default=[], metavar="IMAGES", help="only the memory")
    arguments = parser.parse_args()
    sample = os.environ.get("ANIMALCLF_SAMPLE_DATA") or sys.exit("set ANIMALCLF_SAMPLE_DATA")
    with tempfile.TemporaryDirectory(prefix="animalclf-predict-") as folder:
        files = copies(f"{sample}/animals10_sample", f"{folder}/originals")
        if arguments.side:
            shrink(files, arguments.side)
        if arguments.memory:
            usages = {count: memory(arguments.run, link(files, folder, count)) for count in sorted(arguments.memory)}
            show_memory(usages)
            write_json(arguments.json, {str(count): asdict(usage) for count, usage in usages.items()})
            return
        one, every = link(files, folder, 1), link(files, folder, arguments.images)
        loop = Loop(arguments.run)
        loop.choose(paths_of(every)[:TRIAL_IMAGES])
        rounds = [measure(arguments.run, loop, one, every) for _ in range(arguments.repeat)]
    show(rounds, arguments.images)
    write_json(arguments.json, {"rounds": [vars(each) | {"ratio": each.ratio} for each in rounds]})


def copies(source: str, folder: str) -> list[Path]:
    """The files below `source`, copied into `folder`, so that hard links to them can be made beside it."""
    shutil.copytree(source, folder)
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def shrink(files: list[Path], side: int) -> None:
    """Make the images squares of this side."""
    for file in files:
        image = cv2.imread(str(file))
        if image is not None:
            cv2.imwrite(str(file), cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))


def link(files: list[Path], folder: str, count: int) -> str:
    """A new folder of `count` hard links to `files`, each under its own name."""
    target = Path(folder, f"{count}-images")
    target.mkdir()
    for number in range(count):
        file = files[number % len(files)]
        os.link(file, target / f"{number:06d}{file.suffix}")
    return str(target)


def paths_of(folder: str) -> list[Path]:
    return sorted(Path(folder).iterdir())


def measure(run: str, loop: Loop, one: str, every: str) -> Round:
    with Watch(memory=False) as watch:
        start, _ = command(run, one)
    whole, table = command(run, every)
    paths = paths_of(every)
    loop.classify(paths[:BATCH])
    (first, _), (seconds, probabilities) = (timed(loop.classify, part) for part in (paths[:1], paths))
    own = class_probabilities(table.sort_values("path"), loop.classes)
    difference = float(np.abs(own - probabilities).max())
    if difference > TOLERANCE:
        sys.exit(f"the loop's probabilities differ from those of predict by {difference:.2g}")
    others = len(paths) - 1
    return Round(start, watch.usage.cpu_seconds, others / (whole - start), others / (seconds - first), difference)


def command(run: str, data: str) -> tuple[float, pd.DataFrame]:
    """Seconds of `animalclf predict`, and its table."""
    with tempfile.TemporaryDirectory() as out:
        arguments = ("predict", run, "--data", data, "--out", out, "--batch-size", str(BATCH), "--json")
        started = time.perf_counter()
        result = json.loads(animalclf(*arguments, RAY_ADDRESS="local"))
        seconds = time.perf_counter() - started
        return seconds, pd.read_parquet(result["predictions"])


def timed(function: Callable[[list[Path]], np.ndarray], paths: list[Path]) -> tuple[float, np.ndarray]:
    started = time.perf_counter()
    result = function(paths)
    return time.perf_counter() - started, result


class Views(Dataset[np.ndarray]):
    """The model's inputs uint8 (S, S, 3) of image files."""

    def __init__(self, paths: list[Path], config: Config) -> None:
        self.paths, self.config = paths, config

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        path = self.paths[index]
        return model_input(path.read_bytes(), path.name, self.config)


class Loop:
    """The plain loop."""

    def __init__(self, run: str) -> None:
        set_up_cpu(0, 1)
        model, info = checkpoint.load_model(run)
        self.model, self.config, self.classes = model.eval(), info.config, info.classes
        self.model.to(memory_format=torch.channels_last)
        self.workers, self.threads = SETTINGS[0]

    def choose(self, paths: list[Path]) -> None:
        """Set the numbers of workers and threads that are the fastest."""
        self.classify(paths[:BATCH])
        seconds = {}
        for setting in SETTINGS:
            self.workers, self.threads = setting
            seconds[setting] = timed(self.classify, paths)[0]
        self.workers, self.threads = min(seconds, key=lambda setting: seconds[setting])
        print(f"loop: {self.workers} workers, {self.threads} threads", flush=True)

    @torch.inference_mode()
    def classify(self, paths: list[Path]) -> np.ndarray:
        """Class probabilities float32 (N, C)."""
        torch.set_num_threads(self.threads)
        loader = DataLoader(
            Views(paths, self.config), BATCH, num_workers=self.workers, worker_init_fn=lambda _: cv2.setNumThreads(1)
        )
        bf16 = uses_bf16(self.config, torch.device("cpu"))
        parts = []
        for images in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                parts.append(self.model(images).float().softmax(1).numpy())
        return np.concatenate(parts)


def memory(run: str, data: str) -> Usage:
    with Watch() as watch:
        command(run, data)
    return watch.usage


def show(rounds: list[Round], images: int) -> None:
    table = Table(title=f"predict, {images:,} images", title_justify="left")
    for heading in ("start, s", "start, CPU s", "predict, images/s", "loop, images/s", "ratio", "difference"):
        table.add_column(heading)
    for each in rounds:
        cells = (
            f"{each.start:.1f}",
            f"{each.start_cpu:.1f}",
            f"{each.predict:.1f}",
            f"{each.loop:.1f}",
            f"{each.ratio:.2f}",
        )
        table.add_row(*cells, f"{each.difference:.1g}")
    Console(width=100).print(table)
    print(f"median: start {statistics.median(each.start for each in rounds):.1f} s, ", end="")
    print(f"ratio {statistics.median(each.ratio for each in rounds):.2f}")


def show_memory(usages: dict[int, Usage]) -> None:
    table = Table(title="predict: peak of private memory, GB", title_justify="left")
    for heading in ("images", "driver", "model", "all processes", "seconds", "CPU seconds"):
        table.add_column(heading, justify="right")
    for count, usage in usages.items():
        memory = (f"{size:.3f}" for size in (usage.driver_gb, usage.model_gb, usage.processes_gb))
        table.add_row(f"{count:,}", *memory, f"{usage.seconds:.0f}", f"{usage.cpu_seconds:.0f}")
    Console(width=100).print(table)
    (few, first), (many, last) = (list(usages.items())[index] for index in (0, -1))
    for name in ("driver", "model") if many > few else ():
        growth = (getattr(last, f"{name}_gb") - getattr(first, f"{name}_gb")) * 1e9 / (many - few)
        print(f"{name}: {growth:,.0f} bytes for an image more")


if __name__ == "__main__":
    main()
