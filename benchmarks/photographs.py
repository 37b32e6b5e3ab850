"""CPU time of `prepare`'s tasks for photographs of a camera, and the error of the images that they store.

    python -m benchmarks.photographs --data photos/                       4 photographs of each kind
    python -m benchmarks.photographs --data photos/ --other ../before     beside a checkout of another commit

The photographs are images of `--data` (without it smooth noise), enlarged to 12 or 24 megapixels, with detail at all
scales, edges and grain: JPEG of quality 90 to 95, about 3.5 MB for 12 megapixels. Each contestant is a process that
reads, verifies, hashes, measures and resizes them, --repeat times in turn; the least CPU time counts, because it hardly
depends on other load. The bare loop makes the same calls: it reads, hashes, decodes at a quarter or so, and resizes to
the stored image and to the thumbnail of the search for near-duplicates.

Errors are differences from the image that is decoded at its full size and then resized, in levels of 255.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image
from rich.console import Console
from rich.table import Table

from animalclf.data.decode import decode
from animalclf.data.resize import MIN_SIDE, decoded_side, stored_image
from animalclf.utils.malloc import keep_freed_memory
from benchmarks.common import argument_parser, run, write_json

GRAIN = 3.0
STORED = ((144, "squash"), (252, "squash"), (384, "keep"))
_ROTATED = Image.Exif()
_ROTATED[0x0112] = 6  # the orientation
KINDS: dict[str, dict[str, Any]] = {
    "4:2:0": {"subsampling": 2},
    "4:2:0, rotated by EXIF": {"subsampling": 2, "exif": _ROTATED.tobytes()},
    "4:2:0, 3,997 x 2,999": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "grey": {},
    "progressive": {"subsampling": 2, "progressive": True},
    "CMYK": {},
    "4:2:0, 24 megapixels": {"subsampling": 2},
}
# Names of modules and functions that other versions have too.
TASK = """
import os, re, sys, tempfile, time
import pandas as pd
from animalclf.prepare.task import Job, measure

folder = sys.argv[1]
paths = sorted(os.listdir(folder))
sizes = [os.path.getsize(os.path.join(folder, path)) for path in paths]
chunk = pd.DataFrame({"index": range(len(paths)), "path": paths, "bytes": sizes, "shard": 0})
seconds = []
with tempfile.TemporaryDirectory() as out:
    for _ in range(3):
        started = time.process_time()
        assert set(measure(chunk, Job(folder, out, 144, 10**8))["status"]) == {"ok"}
        seconds.append(time.process_time() - started)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
print(min(seconds) / len(paths), peak / 2**20)
"""
BARE = "import sys; from benchmarks.photographs import bare_loop; bare_loop(sys.argv[1])"


@dataclass(frozen=True)
class Results:
    images: int
    """Of each kind."""
    seconds: dict[str, dict[str, float]]
    """CPU seconds an image, by kind and contestant."""
    peak_gb: dict[str, float]
    """Peak memory in GiB of each contestant's process."""
    errors: dict[str, dict[str, list[float]]]
    """Mean, 99.9 % quantile and maximum, by kind and stored size."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", metavar="FOLDER", help="photographs of any size")
    parser.add_argument("--other", metavar="FOLDER", help="a checkout of another commit")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help="only these")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=2)
    arguments = parser.parse_args()
    checkouts = {"prepare": os.getcwd()}
    if arguments.other:
        checkouts["prepare, other version"] = os.path.abspath(arguments.other)
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(folder, arguments.kinds, arguments.images, arguments.data)
        results = measure(folder, arguments.kinds, arguments.images, checkouts, arguments.repeat)
    show(results)
    write_json(arguments.json, {**dataclasses.asdict(results), "ratios": ratios(results)})


def measure(folder: str, kinds: Sequence[str], images: int, checkouts: Mapping[str, str], repeat: int) -> Results:
    seconds: dict[str, dict[str, float]] = {kind: {} for kind in kinds}
    peak_gb: dict[str, float] = {}
    commands = {"bare loop": (BARE, os.getcwd()), **{name: (TASK, checkout) for name, checkout in checkouts.items()}}
    for kind in kinds:
        for _ in range(repeat):
            for name, (code, checkout) in commands.items():
                if kind == "CMYK" and name == "bare loop":  # simplejpeg does not convert it
                    continue
                # The safe path leaves out this folder, which would come before that of the checkout.
                environment = {"PYTHONPATH": checkout, "PYTHONSAFEPATH": "1"}
                output = run([sys.executable, "-c", code, f"{folder}/{kind}"], **environment)
                least, peak = map(float, output.split()[-2:])
                seconds[kind][name] = min(least, seconds[kind].get(name, least))
                peak_gb[name] = max(peak, peak_gb.get(name, 0))
    errors = {kind: {f"{size} px": error(f"{folder}/{kind}", size, mode) for size, mode in STORED} for kind in kinds}
    return Results(images, seconds, peak_gb, errors)


def ratios(results: Results) -> dict[str, dict[str, float]]:
    """The speed of `prepare` relative to each other contestant's, by kind."""
    return {
        kind: {name: other / seconds["prepare"] for name, other in seconds.items() if name != "prepare"}
        for kind, seconds in results.seconds.items()
    }


def bare_loop(folder: str) -> None:
    """Prints CPU seconds an image and peak memory in GiB, as TASK does."""
    cv2.setNumThreads(1)
    keep_freed_memory()
    paths, seconds = sorted(Path(folder).iterdir()), []
    for _ in range(3):
        started = time.process_time()
        for path in paths:
            content = path.read_bytes()
            hashlib.sha256(content).hexdigest()
            height, width = simplejpeg.decode_jpeg_header(content)[:2]
            scale = next(scale for scale in (8, 4, 2, 1) if min(height, width) // scale >= MIN_SIDE)
            image = simplejpeg.decode_jpeg(content, min_height=-(-height // scale), min_width=-(-width // scale))
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            for pixels, side in ((image, 144), (grey, 40)):
                cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
        seconds.append(time.process_time() - started)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(min(seconds) / len(paths), int(peak.split()[1]) / 2**20)


def error(folder: str, size: int, mode: str) -> list[float]:
    """Mean, 99.9 % quantile and maximum of the differences of the stored images in `folder`."""
    differences = []
    for path in sorted(Path(folder).iterdir()):
        content = path.read_bytes()
        whole, reduced = (decode(content, min_side=side).image for side in (0, decoded_side(size, mode)))
        pair = (stored_image(image, size, mode).astype(np.int16) for image in (whole, reduced))
        differences.append(np.abs(np.subtract(*pair)))
    values = np.stack(differences)
    return [float(values.mean()), float(np.quantile(values, 0.999)), float(values.max())]


def write_photographs(folder: str, kinds: Sequence[str], count: int, data: str | None) -> None:
    """Write `count` photographs of each of `kinds` as folder/<kind>/<number>.jpg."""
    originals = sorted(str(path) for path in Path(data).rglob("*.jp*g")) if data else []
    originals = originals[:: max(1, len(originals) // count)]
    for kind in kinds:
        os.makedirs(f"{folder}/{kind}")
    for number in range(count):
        small = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        if originals:
            small = np.asarray(Image.open(originals[number % len(originals)]).convert("RGB"))
        sides = {kind: (4000, 6000) if "24" in kind else (3000, 4000) for kind in kinds}
        images = {each: Image.fromarray(photograph(small, each, number)) for each in set(sides.values())}
        for kind in kinds:
            image = images[sides[kind]]
            image = image.crop((0, 0, 3997, 2999)) if "3,997" in kind else image
            image = image.convert({"grey": "L", "CMYK": "CMYK"}.get(kind, "RGB"))
            image.save(f"{folder}/{kind}/{number}.jpg", quality=90 + number % 6, **KINDS[kind])


def photograph(small: np.ndarray, sides: Sequence[int], seed: int) -> np.ndarray:
    """An image uint8 (H, W, 3) enlarged to height and width `sides`. Octaves of noise continue the detail of natural
    images, whose amplitude falls with the frequency; ellipses add edges, and a grain stands for the sensor's noise."""
    generator, (height, width) = np.random.default_rng(seed), sides
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    side, amplitude = 2 * small.shape[1], 14.0
    while side <= width:
        noise = amplitude * generator.standard_normal((round(side * height / width), side), np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)[:, :, None]
        side, amplitude = 2 * side, 0.62 * amplitude
    for _ in range(60):
        radius = int(generator.integers(20, 400))
        x, y = int(generator.integers(radius, width - radius)), int(generator.integers(radius, height - radius))
        shape = np.zeros((2 * radius, 2 * radius), np.float32)
        axes = (radius, radius // int(generator.integers(1, 8)))
        cv2.ellipse(shape, (radius, radius), axes, int(generator.integers(180)), 0, 360, 0.6, -1, cv2.LINE_AA)
        part = image[y - radius : y + radius, x - radius : x + radius]
        part += (generator.integers(0, 256, 3) - part) * shape[:, :, None]
    image += GRAIN * generator.standard_normal(image.shape, np.float32)
    return image.clip(0, 255).astype(np.uint8)


def show(results: Results) -> None:
    contestants = list(results.peak_gb)
    table = Table(title=f"CPU time of an image, {results.images} photographs of each kind", title_justify="left")
    for heading in ("", *(f"{name}, ms" for name in contestants)):
        table.add_column(heading, justify="right" if heading else "left")
    others = [name for name in contestants if name != "prepare"]
    for name in others:
        table.add_column(f"speed over {name}", justify="right")
    for kind, speedups in ratios(results).items():
        times = results.seconds[kind]
        cells = [f"{1000 * times[name]:.1f}" if name in times else "" for name in contestants]
        table.add_row(kind, *cells, *(f"{speedups[name]:.2f}" if name in speedups else "" for name in others))
    errors = Table(title="error: mean, 99.9 % quantile, maximum", title_justify="left")
    for heading in ("", *(f"stored at {size} px, {mode}" for size, mode in STORED)):
        errors.add_column(heading, justify="right" if heading else "left")
    for kind, values in results.errors.items():
        errors.add_row(kind, *("{:.2f}, {:.0f}, {:.0f}".format(*value) for value in values.values()))
    console = Console(width=120)
    console.print(table, errors)
    console.print("peak memory: " + ", ".join(f"{name} {peak:.2f} GiB" for name, peak in results.peak_gb.items()))


if __name__ == "__main__":
    main()
