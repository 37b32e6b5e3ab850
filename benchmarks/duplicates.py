"""How well duplicates are found: recall for each modification, what is flagged among images as they are, and time.

    python -m benchmarks.duplicates --data PICTURES [--sample 300] [--synthetic 30000] [--sheet flagged.png] [--json FILE]

Modified pictures, saved as JPEG of quality 90, are looked for among all the others. Which flagged pairs are false alarms is for eyes: see the sheet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from animalclf.duplicates import find

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """`image` uint8 (H, W, 3) after a JPEG file of `quality`."""
    return np.asarray(
        cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    )


def crop(image: np.ndarray, left: float, right: float, top: float, bottom: float) -> np.ndarray:
    """`image` without these shares of its width and height."""
    height, width = image.shape[:2]
    return image[round(top * height) : round((1 - bottom) * height), round(left * width) : round((1 - right) * width)]


def crop_anywhere(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """`image` without 2 x `share` of its width and height, cut at random from both ends."""
    left, top = rng.uniform(0, 2 * share, 2)
    return crop(image, left, 2 * share - left, top, 2 * share - top)


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
    """`image` uint8 (H, W, 3) after the change of that name, as its JPEG file would show it."""
    return jpeg(np.ascontiguousarray(CHANGES[change](image, rng)), 90)


def recall(images: list[np.ndarray], signatures: np.ndarray, sha256: list[str], chosen: np.ndarray) -> dict[str, float]:
    """For each change, the share of the `chosen` pictures whose modified copy gets into their group."""
    found = {}
    for change in CHANGES:
        rng = np.random.default_rng(0)
        changed = np.stack([find.signature(modified(images[row], change, rng)) for row in chosen])
        groups = find.find_duplicates(
            [*sha256, *(f"{change} {row}" for row in chosen)], np.concatenate([signatures, changed])
        )["group"].to_numpy()
        found[change] = float((groups[len(images) :] == groups[chosen]).mean())
    return found


def synthetic(count: int) -> dict[str, Any]:
    """Time and memory for `count` drawn textures, of which 5 % are mirrored copies."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(find.SIDE)[:, None], np.fft.rfftfreq(find.SIDE)).clip(0.5 / find.SIDE)
    signatures = np.empty((count, find.SIDE, find.SIDE), np.uint8)
    for row in range(count):
        texture = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(find.SIDE, find.SIDE))) / frequency**1.2)
        signatures[row] = gain((texture - texture.mean()) / texture.std(), 45, 128)
    planted = count // 20
    signatures[count - planted :] = signatures[:planted, :, ::-1]
    start, start_cpu = time.perf_counter(), time.process_time()
    found = int(
        (find.find_duplicates([str(row) for row in range(count)], signatures.reshape(count, -1))["how"] == "near").sum()
    )
    seconds = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - start_cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"pictures": count, **seconds, "planted": planted, "found": found, "peak_memory_gib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of pictures, with any folders in it")
    parser.add_argument("--sample", type=int, default=300, help="pictures to modify")
    parser.add_argument("--synthetic", type=int, default=0, help="also time so many drawn signatures")
    parser.add_argument("--sheet", help="write the flagged pairs as a PNG")
    parser.add_argument("--json", help="write the figures")
    options = parser.parse_args()

    names = sorted(
        os.path.relpath(os.path.join(folder, name), options.data)
        for folder, _, files in os.walk(options.data)
        for name in files
    )
    names = [name for name in names if name.lower().endswith((".jpg", ".jpeg", ".png", ".webp", ".bmp"))]
    contents = [Path(options.data, name).read_bytes() for name in names]
    images = [
        np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))[..., ::-1].copy()
        for content in contents
    ]
    sha256 = [hashlib.sha256(content).hexdigest() for content in contents]
    signatures = np.stack([find.signature(image) for image in images])
    start = time.perf_counter()
    found = find.find_duplicates(sha256, signatures)
    result: dict[str, Any] = {"pictures": len(names), "seconds": time.perf_counter() - start}
    flagged = found[found["how"] != ""]
    pairs = [
        find.DuplicatePair(names[row], names[partner], float(confidence), how)
        for row, partner, confidence, how in flagged[["partner", "confidence", "how"]].itertuples()
    ]
    result["flagged"] = [{"picture": a, "partner": b, "confidence": sure, "how": how} for a, b, sure, how in pairs]
    chosen = np.random.default_rng(0).permutation(len(names))[: options.sample]
    result["recall"] = recall(images, signatures, sha256, chosen)
    result["synthetic"] = synthetic(options.synthetic) if options.synthetic else None

    table = Table("modification", "found", title=f"{len(chosen)} of {len(names):,} pictures modified")
    for change, share in result["recall"].items():
        table.add_row(change, f"{share:.3f}")
    console = Console()
    console.print(table)
    console.print(f"{len(pairs)} flagged among {len(names):,} pictures as they are, in {result['seconds']:.2f} s")
    for a, b, sure, how in pairs:
        console.print(f"  {how} {sure:.3f}  {a}  {b}")
    if result["synthetic"]:
        console.print("synthetic: " + json.dumps(result["synthetic"]))
    if options.sheet:
        Path(options.sheet).write_bytes(find.contact_sheet(pairs, lambda name: images[names.index(name)]))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
