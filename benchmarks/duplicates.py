"""Quality of duplicate detection: recall of each modification, pairs found among unmodified images, and time.

    python -m benchmarks.duplicates --data IMAGES [--sample 300] [--synthetic 30000] [--sheet pairs.png] [--json FILE]

Modified images, saved as JPEG of quality 90, are searched among all others. Whether the pairs among the unmodified
images are false positives is for a person to judge: see the sheet.
"""

from __future__ import annotations

import hashlib
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from animalclf.duplicates import find
from benchmarks.common import argument_parser, write_json

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Synthetic:
    images: int
    seconds: float
    cpu_seconds: float
    planted: int
    """Mirrored duplicates."""
    near_duplicates: int
    """Found."""
    peak_memory_gib: float


@dataclass(frozen=True)
class Results:
    images: int
    modified: int
    seconds: float
    """Of the unmodified images."""
    pairs: list[find.DuplicatePair]
    """Duplicates among the unmodified images."""
    recall: dict[str, float]
    """Per modification."""
    synthetic: Synthetic | None


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """`image` uint8 (H, W, 3) after a JPEG file of `quality`."""
    return np.asarray(
        cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    )


def crop(image: np.ndarray, left: float, right: float, top: float, bottom: float) -> np.ndarray:
    """`image` without these fractions of its width and height."""
    height, width = image.shape[:2]
    return image[round(top * height) : round((1 - bottom) * height), round(left * width) : round((1 - right) * width)]


def crop_anywhere(image: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """`image` without 2 x `fraction` of its width and height, cut at random from both sides."""
    left, top = rng.uniform(0, 2 * fraction, 2)
    return crop(image, left, 2 * fraction - left, top, 2 * fraction - top)


def gain(image: np.ndarray, factor: float, offset: float = 0) -> np.ndarray:
    return np.clip(image * factor + offset, 0, 255).round().astype(np.uint8)


CHANGES: dict[str, Change] = {
    "mirror": lambda image, rng: image[:, ::-1],
    "turn 90": lambda image, rng: np.rot90(image, 1),
    "turn 180": lambda image, rng: np.rot90(image, 2),
    "turn 270": lambda image, rng: np.rot90(image, 3),
    "recompress q=30": lambda image, rng: jpeg(image, 30),
    "resize to 50 %": lambda image, rng: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "crop 5 % a side": lambda image, rng: crop(image, 0.05, 0.05, 0.05, 0.05),
    "crop 5 % a side, off centre": lambda image, rng: crop_anywhere(image, 0.05, rng),
    "crop 10 % a side": lambda image, rng: crop(image, 0.1, 0.1, 0.1, 0.1),
    "crop 10 % a side, off centre": lambda image, rng: crop_anywhere(image, 0.1, rng),
    "crop 15 % of the width": lambda image, rng: crop(image, 0.15, 0, 0, 0),
    "brightness x 0.6": lambda image, rng: gain(image, 0.6),
    "brightness x 1.4": lambda image, rng: gain(image, 1.4),
    "contrast x 0.6": lambda image, rng: gain(image, 0.6, 51),
    "mirror, crop 5 % off centre": lambda image, rng: crop_anywhere(image, 0.05, rng)[:, ::-1],
    "mirror, darken x 0.6": lambda image, rng: gain(image[:, ::-1], 0.6),
    "turn 90, brighten x 1.4": lambda image, rng: gain(np.rot90(image), 1.4),
    "turn 90, crop 5 % a side": lambda image, rng: np.rot90(crop(image, 0.05, 0.05, 0.05, 0.05)),
    "crop 10 % off centre, darken x 0.6": lambda image, rng: gain(crop_anywhere(image, 0.1, rng), 0.6),
}


def modified(image: np.ndarray, change: str, rng: np.random.Generator) -> np.ndarray:
    """`image` uint8 (H, W, 3) after the change of that name, from a JPEG file."""
    return jpeg(np.ascontiguousarray(CHANGES[change](image, rng)), 90)


def recall(images: list[np.ndarray], signatures: np.ndarray, sha256: list[str], chosen: np.ndarray) -> dict[str, float]:
    """Per change, the fraction of the `chosen` images whose modified form gets into the image's group."""
    recalls = {}
    for change in CHANGES:
        rng = np.random.default_rng(0)
        changed = np.stack([find.signature(modified(images[row], change, rng)) for row in chosen])
        groups = find.find_duplicates(
            [*sha256, *(f"{change} {row}" for row in chosen)], np.concatenate([signatures, changed])
        )["group"].to_numpy()
        recalls[change] = float((groups[len(images) :] == groups[chosen]).mean())
    return recalls


def synthetic(count: int) -> Synthetic:
    """Time and memory for `count` drawn textures, of which 5 % are mirrored duplicates."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(find.SIDE)[:, None], np.fft.rfftfreq(find.SIDE)).clip(0.5 / find.SIDE)
    signatures = np.empty((count, find.SIDE, find.SIDE), np.uint8)
    for row in range(count):
        texture = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(find.SIDE, find.SIDE))) / frequency**1.2)
        signatures[row] = gain((texture - texture.mean()) / texture.std(), 45, 128)
    planted = count // 20
    signatures[count - planted :] = signatures[:planted, :, ::-1]
    start, start_cpu = time.perf_counter(), time.process_time()
    groups = find.find_duplicates([str(row) for row in range(count)], signatures.reshape(count, -1))
    return Synthetic(
        images=count,
        seconds=time.perf_counter() - start,
        cpu_seconds=time.process_time() - start_cpu,
        planted=planted,
        near_duplicates=int((groups["kind"] == "near").sum()),
        peak_memory_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", required=True, help="folder of images, with or without subfolders")
    parser.add_argument("--sample", type=int, default=300, help="images to modify")
    parser.add_argument("--synthetic", type=int, default=0, help="also time this number of drawn signatures")
    parser.add_argument("--sheet", help="write the pairs as a PNG")
    arguments = parser.parse_args()
    names, contents = read_files(arguments.data)
    images = [
        np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))[..., ::-1].copy()
        for content in contents
    ]
    results = measure(names, contents, images, arguments.sample, arguments.synthetic)
    show(results)
    if arguments.sheet:
        Path(arguments.sheet).write_bytes(find.contact_sheet(results.pairs, lambda name: images[names.index(name)]))
    write_json(arguments.json, results)


def read_files(folder: str) -> tuple[list[str], list[bytes]]:
    """Paths of the image files below `folder`, and their contents."""
    names = sorted(
        os.path.relpath(os.path.join(parent, name), folder) for parent, _, files in os.walk(folder) for name in files
    )
    names = [name for name in names if name.lower().endswith((".jpg", ".jpeg", ".png", ".webp", ".bmp"))]
    return names, [Path(folder, name).read_bytes() for name in names]


def measure(
    names: list[str], contents: list[bytes], images: list[np.ndarray], sample: int, synthetic_count: int
) -> Results:
    """`images`: uint8 (H, W, 3) of each file."""
    sha256 = [hashlib.sha256(content).hexdigest() for content in contents]
    signatures = np.stack([find.signature(image) for image in images])
    start = time.perf_counter()
    groups = find.find_duplicates(sha256, signatures)
    seconds = time.perf_counter() - start
    rows = groups.loc[groups["kind"] != "", ["partner", "confidence", "kind"]].itertuples()
    pairs = [
        find.DuplicatePair(names[row], names[partner], float(confidence), kind)
        for row, partner, confidence, kind in rows
    ]
    chosen = np.random.default_rng(0).permutation(len(names))[:sample]
    return Results(
        images=len(names),
        modified=len(chosen),
        seconds=seconds,
        pairs=pairs,
        recall=recall(images, signatures, sha256, chosen),
        synthetic=synthetic(synthetic_count) if synthetic_count else None,
    )


def show(results: Results) -> None:
    title = f"{results.modified} of {results.images:,} images modified"
    table = Table("modification", "recall", title=title)
    for change, fraction in results.recall.items():
        table.add_row(change, f"{fraction:.3f}")
    console = Console()
    console.print(table)
    console.print(f"{len(results.pairs)} pairs among {results.images:,} unmodified images, in {results.seconds:.2f} s")
    for pair in results.pairs:
        console.print(f"  {pair.kind} {pair.confidence:.3f}  {pair.path}  {pair.partner}", markup=False)
    if results.synthetic:
        console.print(f"synthetic: {results.synthetic}", markup=False)


if __name__ == "__main__":
    main()
