"""Many small files through the whole project: `prepare`, `train`, `predict` and `report`, each a command, with its time
and memory.

    ANIMALCLF_SAMPLE_DATA=... python -m benchmarks.large_set                   10,000 and 100,000 files of 32 px
    ANIMALCLF_SAMPLE_DATA=... python -m benchmarks.large_set --images 3000 --keep FOLDER

The files are squares of the photographs of ANIMALCLF_SAMPLE_DATA that do not overlap, enlarged to 32 x 32 px, in ten
folders. The model is a ShuffleNetV2 (0.5x) that is trained from scratch at 32 px, since pretrained networks take larger
images; its accuracy means nothing. `predict` classifies the same files. The figures of a command: see
benchmarks/usage.py. The exponent is the growth of the CPU seconds with the number of files.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common import animalclf, argument_parser, write_json
from benchmarks.growth import draw, text
from benchmarks.usage import Usage, Watch

SIDE = 32  # of the files, pixels
CUT = 24  # of the squares, pixels
CLASSES = 10
STEPS = ("prepare", "train", "predict", "report")
SETTINGS = {
    "data.stored_size": SIDE,
    "model.name": "shufflenet_v2_x0_5",
    "model.input_size": SIDE,
    "model.weights": "none",
    "model.trainable": "all",
    "train.batch_size": 128,
    "train.precision": "fp32",
}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=STEPS, help="only these (with --keep)")
    parser.add_argument("--keep", metavar="FOLDER", help="write files and results here, and do not remove them")
    parser.add_argument("--plot", metavar="FILE", help="draw the results as this file (.svg, .png)")
    arguments = parser.parse_args()
    sample = os.environ.get("ANIMALCLF_SAMPLE_DATA") or sys.exit("set ANIMALCLF_SAMPLE_DATA")
    usages: dict[int, dict[str, Usage]] = {}
    with tempfile.TemporaryDirectory(prefix="animalclf-large-set-") as temporary:
        for count in sorted(arguments.images):
            folder = Path(arguments.keep or temporary) / str(count)
            if not folder.exists():
                write_files(Path(sample), folder / "photos", count)
            usages[count] = measure(folder, arguments.steps, arguments.epochs)
            show(usages[count], count)
    lines = {name: [(count, each[name].cpu_seconds) for count, each in usages.items()] for name in usages[count]}
    for name, line in lines.items():
        if slope := text(line):
            print(f"{name}: CPU seconds grow with the number of files to the power of {slope}")
    draw(arguments.plot, "CPU seconds", "files", lines)
    write_json(
        arguments.json,
        {str(count): {name: asdict(usage) for name, usage in each.items()} for count, each in usages.items()},
    )


def measure(folder: Path, steps: list[str], epochs: int) -> dict[str, Usage]:
    """These commands on the files in `folder`."""
    usages = {}
    for name, command in commands(folder, epochs).items():
        if name in steps:
            with Watch() as watch:
                animalclf(*command, RAY_ADDRESS="local")
            usages[name] = watch.usage
            print(f"{name}: {watch.usage}", flush=True)
    return usages


def commands(folder: Path, epochs: int) -> dict[str, list[str]]:
    """The arguments of each command, in order."""
    photos, prepared, run = (str(folder / name) for name in ("photos", "prepared", "run"))
    settings = [
        word for key, value in {**SETTINGS, "train.epochs": epochs}.items() for word in ("--set", f"{key}={value}")
    ]
    return {
        "prepare": ["prepare", "--recipe", "resnet18", "--data", photos, "--out", prepared, *settings],
        "train": ["train", "--recipe", "resnet18", "--data", prepared, "--out", run, *settings],
        "predict": ["predict", run, "--data", photos, "--out", str(folder / "predictions")],
        "report": ["report", run, "--out", str(folder / "report")],
    }


def write_files(sample: Path, folder: Path, count: int) -> None:
    """`count` files of SIDE x SIDE px, or as many as the photographs below `sample` give, in CLASSES folders."""
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)

    def write(numbered: tuple[int, np.ndarray]) -> None:
        number, square = numbered
        image = cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"class{number % CLASSES}" / f"{number:07d}.jpg"), image)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        written = sum(1 for _ in pool.map(write, enumerate(islice(squares(sample), count))))
    if written < count:
        sys.exit(f"the photographs of {sample} give {written:,} squares only")


def squares(sample: Path) -> Iterator[np.ndarray]:
    """Squares uint8 (CUT, CUT, 3) of all photographs, in an order that mixes them."""
    images = [image for file in sorted(sample.glob("*/*/*")) if (image := cv2.imread(str(file))) is not None]
    places = [
        (number, top, left)
        for number, image in enumerate(images)
        for top in range(0, image.shape[0] - CUT + 1, CUT)
        for left in range(0, image.shape[1] - CUT + 1, CUT)
    ]
    for row in np.random.default_rng(0).permutation(len(places)):
        number, top, left = places[row]
        yield images[number][top : top + CUT, left : left + CUT]


def show(usages: dict[str, Usage], images: int) -> None:
    table = Table(title=f"{images:,} files of {SIDE} px", title_justify="left")
    for heading in ("", "seconds", "CPU seconds", "driver, GB", "model, GB", "all processes, GB"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, usage in usages.items():
        memory = (f"{size:.2f}" for size in (usage.driver_gb, usage.model_gb, usage.processes_gb))
        table.add_row(name, f"{usage.seconds:,.0f}", f"{usage.cpu_seconds:,.0f}", *memory)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
