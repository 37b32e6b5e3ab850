"""The demo set's files: the layout, class names and imbalance of the Animals-10 competition, with planted defects on request.

Image i depends only on (seed, split, i): the bytes are the same for any number of processes, and a larger set begins with the smaller one.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from animalclf.demo.draw import ANIMALS, draw
from animalclf.errors import UserError
from animalclf.utils import storage
from animalclf.utils.console import console

CLASS_COUNTS = {name: int(options["count"]) for name, (options, _) in ANIMALS.items()}
CLASSES = list(CLASS_COUNTS)
INFO = "demo.json"  # {"arguments", "result"}; the result is null until the set is complete
VERSION = 2  # raise it when the drawing changes: then an older set is not taken for this one
OLD_KEYS = {"pictures": "images", "test_pictures": "test_images"}  # of results that older versions wrote
MIN_PER_CLASS = 3
CHUNK = 50  # images drawn and written at a time
TRAIN, TEST, PLANTED = 0, 1, 2
Size = tuple[int, int]


def train_labels(images: int) -> list[str]:
    """Class of each training image: `MIN_PER_CLASS` of each, then at every length near the competition's class shares."""
    total = sum(CLASS_COUNTS.values())
    places = [
        ((number + 0.5) / count if number >= MIN_PER_CLASS else number - MIN_PER_CLASS, name)
        for name, count in CLASS_COUNTS.items()
        for number in range(MIN_PER_CLASS + images * count // total + 1)
    ]
    return [name for _, name in sorted(places)[:images]]


def test_labels(images: int, seed: int) -> list[str]:
    """Class of each test image: each block of ten holds each class once, in random order."""
    return [
        CLASSES[k] for block in range(-(-images // 10)) for k in np.random.default_rng([seed, 3, block]).permutation(10)
    ][:images]


def _path(seed: int, split: int, number: int, label: str) -> str:
    code = np.random.default_rng([seed, 4, number]).bytes(13).hex()
    return f"test_images/{number}.jpeg" if split == TEST else f"train_images/{label}/OIP-{code}.jpeg"


def _draw(seed: int, split: int, number: int, label: str, size: Size) -> tuple[np.ndarray, int]:
    """An image uint8 (H, W, 3) RGB of about `size` (width, height; a quarter of them upright), and its JPEG quality."""
    rng = np.random.default_rng([seed, split, number])
    width, height = (
        np.rint(size * rng.uniform((0.8, 0.75), (1.1, 1.15))).astype(int)[:: rng.choice([1, 1, 1, -1])].tolist()
    )
    return draw(label, height, width, rng), int(rng.integers(60, 96))


def _jpeg(image: np.ndarray, quality: int = 85) -> bytes:
    return bytes(
        simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="420")
    )


def _encode(image: np.ndarray, kind: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image).convert(mode).save(sink, kind, **options)
    return sink.getvalue()


def _write(job: tuple[str, int, Size, int, int, list[str]]) -> int:
    """Draw and write the images `first`, `first` + 1, ... of `labels`, in any process; returns their number."""
    root, seed, size, split, first, labels = job
    fs, base = storage.filesystem(root)
    images = [(seed, split, number, label) for number, label in enumerate(labels, first)]
    files = {storage.join(base, _path(*image)): _jpeg(*_draw(*image, size)) for image in images}
    try:
        fs.pipe(files)  # not synced file by file: demo.json says when all are there
    except OSError as error:
        raise UserError(
            f"{root}: cannot be written ({error.strerror or error}); free space or choose another place"
        ) from error
    return len(files)


def _plant(root: str, seed: int, size: Size, labels: list[str]) -> list[dict[str, str]]:
    """Add the known defects to the training folder and list them in defects.json."""
    fresh = {name: _draw(seed, PLANTED, number, name, size)[0] for number, name in enumerate(CLASSES)}
    first = {name: _draw(seed, TRAIN, labels.index(name), name, size) for name in CLASSES}
    (sheep, _), exif, whole = first["pecora"], Image.Exif(), _jpeg(fresh["cane"])
    exif[0x0112] = 6  # orientation: turn a quarter clockwise to view
    deep = cv2.imencode(".png", cv2.cvtColor(fresh["scoiattolo"], cv2.COLOR_RGB2GRAY).astype(np.uint16) * 257)[
        1
    ].tobytes()
    frames = [Image.fromarray(np.roll(fresh["cavallo"], shift, 1)) for shift in (9, 18)]
    planted = []
    for kind, folder, shows, note, suffix, content in (
        ("truncated", "cane", "", "the file ends early", "jpeg", whole[: len(whole) * 2 // 5]),
        ("empty", "cavallo", "", "no bytes at all", "jpeg", b""),
        (
            "html",
            "gallina",
            "",
            "an error page saved as an image",
            "jpeg",
            b"<!DOCTYPE html>\n<title>404 Not Found</title>\n",
        ),
        ("wrong extension", "gatto", "gatto", "a PNG file", "jpeg", _encode(fresh["gatto"], kind="PNG")),
        ("identical copy", "ragno", "ragno", "the same bytes in the same class", "jpeg", _jpeg(*first["ragno"])),
        ("contradictory copy", "gatto", "cane", "the same bytes under another class", "jpeg", _jpeg(*first["cane"])),
        (
            "mirrored copy",
            "mucca",
            "mucca",
            "mirrored and compressed again",
            "jpeg",
            _jpeg(first["mucca"][0][:, ::-1], 55),
        ),
        (
            "cropped copy",
            "pecora",
            "pecora",
            "4 % cut off two sides",
            "jpeg",
            _jpeg(sheep[len(sheep) // 25 :, : -(sheep.shape[1] // 25)], 80),
        ),
        ("wrong label", "farfalla", "ragno", "a spider among the butterflies", "jpeg", _jpeg(fresh["ragno"])),
        ("cmyk", "elefante", "elefante", "four inks instead of RGB", "jpeg", _encode(fresh["elefante"], mode="CMYK")),
        ("16 bit", "scoiattolo", "scoiattolo", "16-bit greyscale", "png", deep),
        (
            "animated",
            "cavallo",
            "cavallo",
            "three frames",
            "gif",
            _encode(fresh["cavallo"], kind="GIF", save_all=True, append_images=frames),
        ),
        (
            "exif rotated",
            "cane",
            "cane",
            "lies on its side, EXIF says how to turn it",
            "jpeg",
            _encode(np.rot90(fresh["cane"]), exif=exif),
        ),
    ):
        path = f"train_images/{folder}/defect-{kind.replace(' ', '-')}.{suffix}"
        storage.write_bytes(storage.join(root, path), content)
        original = _path(seed, TRAIN, labels.index(shows), shows) if kind.endswith("copy") else ""
        planted.append({"kind": kind, "path": path, "of": original, "shows": shows, "note": note})
    storage.write_json(storage.join(root, "defects.json"), planted)
    return planted


def _check(root: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a complete set of these arguments; None where there is nothing, or an interrupted run of the same."""
    (fs, path), info = storage.filesystem(root), storage.join(root, INFO)
    try:
        found = storage.read_json(info) if storage.exists(info) else {}
    except ValueError as error:
        raise UserError(f"{info}: is not of a demo set ({error}); choose an empty or new folder") from error
    if found.get("arguments", arguments) != arguments:
        raise UserError(
            f"{root}: holds a demo set of other arguments ({found['arguments']}); remove it or choose another folder"
        )
    if "result" not in found and fs.exists(path) and fs.ls(path):
        raise UserError(
            f"{root}: holds files that are not a demo set ({INFO} is missing); choose an empty or new folder"
        )
    result = found.get("result")
    return {OLD_KEYS.get(key, key): value for key, value in result.items()} if result else None


def write_demo(
    out: str,
    *,
    images: int = 1200,
    test_images: int = 100,
    seed: int = 0,
    defects: bool = False,
    size: Size = (300, 225),
    processes: int = 0,
) -> dict[str, Any]:
    """Write the demo set to `out`, a local folder or s3:// prefix; answers.csv holds the classes of the balanced, unlabelled test images.

    `size` is the usual (width, height) in pixels. `defects` adds files with known defects to the training folder, listed in defects.json.
    `processes` 0 means one a core, or this one alone for few images; more than one needs `if __name__ == "__main__":` in a script.
    Returns root, pictures and counts (training files in all and by class), test_pictures, classes, seconds and defects (dicts: kind, path, of,
    shows, note). A complete set of the same arguments is left as it is, an interrupted run is resumed. Raises UserError for impossible
    arguments, for a folder that holds anything else, and where nothing can be written.
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
    if images < len(CLASSES) or min(test_images, seed, processes) < 0 or min(size) < 32:
        least = f"at least {len(CLASSES)} images (one a class), sides of at least 32 pixels and no negative number"
        raise UserError(f"demo set of {arguments} with {processes} processes: it takes {least}")
    result = _check(root, arguments)
    if result is not None:
        return {**result, "root": root, "seconds": round(time.monotonic() - started, 3)}
    storage.write_json(storage.join(root, INFO), {"arguments": arguments, "result": None})
    for folder in () if storage.is_remote(root) else ("test_images", *(f"train_images/{name}" for name in CLASSES)):
        os.makedirs(storage.join(root, folder), exist_ok=True)
    splits = {TRAIN: train_labels(images), TEST: test_labels(test_images, seed)}
    jobs = [
        (root, seed, size, split, k, names[k : k + CHUNK])
        for split, names in splits.items()
        for k in range(0, len(names), CHUNK)
    ]
    processes = processes or (1 if len(jobs) < 8 else os.cpu_count() or 1)
    # spawn: the caller may hold threads (torch, Ray) that a fork would break
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        for number, _ in enumerate((map if processes == 1 else pool.map)(_write, jobs), 1):
            if number % 20 == 0:
                console.print(f"demo set: {number * CHUNK:,} of {images + test_images:,} images")
    planted = _plant(root, seed, size, splits[TRAIN]) if defects else []
    for name, classes in (("sample_submission.csv", ["cane"] * test_images), ("answers.csv", splits[TEST])):
        rows = [f"{number}.jpeg,{label}\n" for number, label in enumerate(classes)]
        storage.write_bytes(storage.join(root, name), ("id,category\n" + "".join(rows)).encode())
    folders = splits[TRAIN] + [defect["path"].split("/")[1] for defect in planted]
    result = {
        "root": root,
        "images": len(folders),
        "test_images": test_images,
        "classes": CLASSES,
        "defects": planted,
    }
    result |= {
        "counts": {name: folders.count(name) for name in CLASSES},
        "seconds": round(time.monotonic() - started, 3),
    }
    storage.write_json(storage.join(root, INFO), {"arguments": arguments, "result": result})
    return result
