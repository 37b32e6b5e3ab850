"""The demo set's files: the layout, class names and imbalance of the Animals-10 competition, optionally with planted
defects.

Image i depends only on (seed, split, i): the bytes are the same for any number of processes, and a larger set begins
with the smaller one.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import TypedDict, cast

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from animalclf.demo.draw import ANIMALS, draw
from animalclf.errors import UserError
from animalclf.utils import storage
from animalclf.utils.console import show_line

CLASS_COUNTS = {name: animal.count for name, animal in ANIMALS.items()}
CLASSES = list(CLASS_COUNTS)
INFO = "demo.json"  # {"arguments", "result"}; the result is null until the set is complete
OLD_KEYS = {"pictures": "images", "test_pictures": "test_images"}  # of results that older versions wrote
VERSION = 2  # increment it when the drawing changes, so that an older set is not reused
MIN_PER_CLASS = 3
MIN_SIDE = 32  # pixels
CHUNK = 50  # images drawn and written at a time
MIN_PARALLEL_CHUNKS = 8  # fewer are drawn in this process
LOG_CHUNKS = 20  # chunks between two progress lines
TRAIN, TEST, PLANTED = 0, 1, 2
Size = tuple[int, int]


class Defect(TypedDict):
    """A planted file. `of`: the image that it duplicates, or ""; `shows`: the class that it shows, or ""."""

    kind: str
    path: str
    of: str
    shows: str
    note: str


class DemoSet(TypedDict):
    """A written demo set. `images` and `counts`: training files in total and by class; `seconds`: time of the call."""

    root: str
    images: int
    test_images: int
    classes: list[str]
    defects: list[Defect]
    counts: dict[str, int]
    seconds: float


def train_labels(images: int) -> list[str]:
    """Class of each training image: `MIN_PER_CLASS` of each, then at every length close to the competition's class
    fractions."""
    total = sum(CLASS_COUNTS.values())
    positions = [
        ((number + 0.5) / count if number >= MIN_PER_CLASS else number - MIN_PER_CLASS, name)
        for name, count in CLASS_COUNTS.items()
        for number in range(MIN_PER_CLASS + images * count // total + 1)
    ]
    return [name for _, name in sorted(positions)[:images]]


def test_labels(images: int, seed: int) -> list[str]:
    """Class of each test image: each block of ten has each class once, in random order."""
    return [
        CLASSES[k] for block in range(-(-images // 10)) for k in np.random.default_rng([seed, 3, block]).permutation(10)
    ][:images]


def _path(seed: int, split: int, number: int, label: str) -> str:
    code = np.random.default_rng([seed, 4, number]).bytes(13).hex()
    return f"test_images/{number}.jpeg" if split == TEST else f"train_images/{label}/OIP-{code}.jpeg"


def _draw(seed: int, split: int, number: int, label: str, size: Size) -> tuple[np.ndarray, int]:
    """An image uint8 (H, W, 3) RGB of about `size` (width, height; a quarter of the images is upright), and its JPEG
    quality."""
    rng = np.random.default_rng([seed, split, number])
    sides = np.rint(size * rng.uniform((0.8, 0.75), (1.1, 1.15))).astype(int)
    width, height = sides[:: rng.choice([1, 1, 1, -1])].tolist()
    return draw(label, height, width, rng), int(rng.integers(60, 96))


def _jpeg(image: np.ndarray, quality: int = 85) -> bytes:
    image = np.ascontiguousarray(image)
    return bytes(simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB", colorsubsampling="420"))


def _encode(image: np.ndarray, kind: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    """`image` as a file of Pillow's format `kind`, converted to `mode`; `options` of Pillow's save."""
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, kind, **options)
    return file.getvalue()


def _write_chunk(chunk: tuple[str, int, Size, int, int, list[str]]) -> int:
    """Draw and write the images `first`, `first` + 1, ... with these labels, in any process. Returns their number."""
    root, seed, size, split, first, labels = chunk
    fs, base = storage.filesystem(root)
    images = [(seed, split, number, label) for number, label in enumerate(labels, first)]
    files = {storage.join(base, _path(*image)): _jpeg(*_draw(*image, size)) for image in images}
    try:
        fs.pipe(files)  # without fsync: demo.json is completed last
    except OSError as error:
        raise UserError(
            f"{root}: cannot be written ({error.strerror or error}); free space or choose another folder"
        ) from error
    return len(files)


def _plant_defects(root: str, seed: int, size: Size, labels: list[str]) -> list[Defect]:
    """Add files with known defects to the training folder and list them in defects.json."""
    new = {name: _draw(seed, PLANTED, number, name, size)[0] for number, name in enumerate(CLASSES)}
    first = {name: _draw(seed, TRAIN, labels.index(name), name, size) for name in CLASSES}
    (sheep, _), exif, whole = first["pecora"], Image.Exif(), _jpeg(new["cane"])
    exif[0x0112] = 6  # orientation: rotate by 90 degrees clockwise to view
    cropped = sheep[len(sheep) // 25 :, : -(sheep.shape[1] // 25)]
    grey16 = cv2.cvtColor(new["scoiattolo"], cv2.COLOR_RGB2GRAY).astype(np.uint16) * 257
    png16 = cv2.imencode(".png", grey16)[1].tobytes()
    frames = [Image.fromarray(np.roll(new["cavallo"], shift, 1)) for shift in (9, 18)]
    animation = _encode(new["cavallo"], kind="GIF", save_all=True, append_images=frames)
    html = b"<!DOCTYPE html>\n<title>404 Not Found</title>\n"
    planted: list[Defect] = []
    for kind, folder, shows, note, suffix, content in (
        ("truncated", "cane", "", "the file ends early", "jpeg", whole[: len(whole) * 2 // 5]),
        ("empty", "cavallo", "", "no bytes at all", "jpeg", b""),
        ("html", "gallina", "", "an error page saved as an image", "jpeg", html),
        ("wrong extension", "gatto", "gatto", "a PNG file", "jpeg", _encode(new["gatto"], kind="PNG")),
        ("identical duplicate", "ragno", "ragno", "same bytes, same class", "jpeg", _jpeg(*first["ragno"])),
        ("contradictory duplicate", "gatto", "cane", "same bytes, other class", "jpeg", _jpeg(*first["cane"])),
        ("mirrored duplicate", "mucca", "mucca", "recompressed", "jpeg", _jpeg(first["mucca"][0][:, ::-1], 55)),
        ("cropped duplicate", "pecora", "pecora", "4 % cut off two sides", "jpeg", _jpeg(cropped, 80)),
        ("wrong label", "farfalla", "ragno", "a spider among the butterflies", "jpeg", _jpeg(new["ragno"])),
        ("cmyk", "elefante", "elefante", "four inks instead of RGB", "jpeg", _encode(new["elefante"], mode="CMYK")),
        ("16 bit", "scoiattolo", "scoiattolo", "16-bit greyscale", "png", png16),
        ("animated", "cavallo", "cavallo", "three frames", "gif", animation),
        ("exif rotated", "cane", "cane", "upright by EXIF only", "jpeg", _encode(np.rot90(new["cane"]), exif=exif)),
    ):
        path = f"train_images/{folder}/defect-{kind.replace(' ', '-')}.{suffix}"
        storage.write_bytes(storage.join(root, path), content)
        original = _path(seed, TRAIN, labels.index(shows), shows) if kind.endswith("duplicate") else ""
        planted.append({"kind": kind, "path": path, "of": original, "shows": shows, "note": note})
    storage.write_json(storage.join(root, "defects.json"), planted)
    return planted


def _find_complete(root: str, arguments: Mapping[str, object]) -> DemoSet | None:
    """The result of a complete set of these arguments; None for an empty folder or an interrupted run with these
    arguments. Raises UserError."""
    (fs, path), url = storage.filesystem(root), storage.join(root, INFO)
    try:
        info = storage.read_json(url) if storage.exists(url) else {}
    except ValueError as error:
        raise UserError(f"{url}: not the {INFO} of a demo set ({error}); choose an empty or a new folder") from error
    if info.get("arguments", arguments) != arguments:
        raise UserError(
            f"{root}: holds a demo set of other arguments ({info['arguments']}); remove it or choose another folder"
        )
    if "result" not in info and fs.exists(path) and fs.ls(path):
        raise UserError(f"{root}: holds files, but no demo set ({INFO} is missing); choose an empty or a new folder")
    result = info.get("result")
    return result and cast(DemoSet, {OLD_KEYS.get(key, key): value for key, value in result.items()})


def write_demo(
    out: str,
    *,
    images: int = 1200,
    test_images: int = 100,
    seed: int = 0,
    defects: bool = False,
    size: Size = (300, 225),
    processes: int = 0,
) -> DemoSet:
    """Write the demo set to `out`, a local folder or s3:// prefix; answers.csv has the classes of the balanced,
    unlabelled test images.

    `size` is the typical (width, height) in pixels. `defects` adds files with known defects to the training folder,
    listed in defects.json. `processes`: 0 uses one per core, or only this process for few images; with more than one, a
    script needs `if __name__ == "__main__":`. A complete set of the same arguments is returned as it is, and an
    interrupted run is resumed. Raises UserError for invalid arguments, for a folder that holds anything else, and if
    nothing can be written.
    """
    started, root = time.monotonic(), storage.absolute(out)
    arguments = {
        "version": VERSION,
        "images": images,
        "test_images": test_images,
        "seed": seed,
        "defects": defects,
        "size": list(size),
    }
    if images < len(CLASSES):
        raise UserError(f"--images {images}: at least {len(CLASSES)}, one of each class")
    for flag, number in (("--test-images", test_images), ("--seed", seed), ("processes", processes)):
        if number < 0:
            raise UserError(f"{flag} {number}: 0 or more")
    if min(size) < MIN_SIDE:
        raise UserError(f"size {size}: sides of at least {MIN_SIDE} pixels")
    complete = _find_complete(root, arguments)
    if complete is not None:
        return {**complete, "root": root, "seconds": round(time.monotonic() - started, 3)}
    storage.write_json(storage.join(root, INFO), {"arguments": arguments, "result": None})
    labels = {TRAIN: train_labels(images), TEST: test_labels(test_images, seed)}
    _write_images(root, seed, size, labels, processes)
    planted = _plant_defects(root, seed, size, labels[TRAIN]) if defects else []
    for name, classes in (("sample_submission.csv", ["cane"] * test_images), ("answers.csv", labels[TEST])):
        rows = [f"{number}.jpeg,{label}\n" for number, label in enumerate(classes)]
        storage.write_bytes(storage.join(root, name), ("id,category\n" + "".join(rows)).encode())
    folders = labels[TRAIN] + [defect["path"].split("/")[1] for defect in planted]
    result: DemoSet = {
        "root": root,
        "images": len(folders),
        "test_images": test_images,
        "classes": CLASSES,
        "defects": planted,
        "counts": {name: folders.count(name) for name in CLASSES},
        "seconds": round(time.monotonic() - started, 3),
    }
    storage.write_json(storage.join(root, INFO), {"arguments": arguments, "result": result})
    return result


def _write_images(root: str, seed: int, size: Size, labels: Mapping[int, list[str]], processes: int) -> None:
    """Draw and write the images of each split of `labels`."""
    if not storage.is_remote(root):
        for folder in ("test_images", *(f"train_images/{name}" for name in CLASSES)):
            os.makedirs(storage.join(root, folder), exist_ok=True)
    chunks = [
        (root, seed, size, split, first, names[first : first + CHUNK])
        for split, names in labels.items()
        for first in range(0, len(names), CHUNK)
    ]
    total = sum(map(len, labels.values()))
    processes = processes or (1 if len(chunks) < MIN_PARALLEL_CHUNKS else os.cpu_count() or 1)
    # spawn: a fork would break if the caller has threads (torch, Ray)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        for number, _ in enumerate((map if processes == 1 else pool.map)(_write_chunk, chunks), 1):
            if number % LOG_CHUNKS == 0:
                show_line(f"demo set: {number * CHUNK:,} of {total:,} images")
