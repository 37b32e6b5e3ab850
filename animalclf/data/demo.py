"""The demo set: cartoon animals drawn by code, in the layout, class names and imbalance of the competition the seed took part in.

Picture i depends only on (seed, split, i): a seed gives the same bytes for any number of processes, and a larger set begins with the smaller one.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from animalclf.data.drawing.scene import picture
from animalclf.errors import UserError
from animalclf.utils import storage

# Training pictures a class in the seed's competition (the public Animals-10 set less 500 of each class), by its own record.
SEED_COUNTS = {
    "cane": 4363,
    "cavallo": 2123,
    "elefante": 946,
    "farfalla": 1612,
    "gallina": 2598,
    "gatto": 1168,
    "mucca": 1366,
    "pecora": 1320,
    "ragno": 4321,
    "scoiattolo": 1362,
}
CLASSES = list(SEED_COUNTS)
INFO = "demo.json"  # {"arguments", "result"}; the result is null until the set is whole
VERSION = 1  # raise it when the drawing changes: then an older set is not taken for this one
FEW = 3  # pictures that even the rarest class gets
CHUNK = 50  # pictures drawn and written at a time
TRAIN, TEST, PLANTED = 0, 1, 2


def train_labels(pictures: int) -> list[str]:
    """Class of each training picture: first `FEW` of each class, from there on at every length as near to the seed's shares as can be."""
    shares = np.array(list(SEED_COUNTS.values())) / sum(SEED_COUNTS.values())
    have = np.zeros(len(CLASSES))
    labels = []
    for number in range(pictures):
        lacking = np.where(have < FEW, pictures + FEW - have, shares * (number + 1) - have)
        chosen = int(np.argmax(lacking))
        have[chosen] += 1
        labels.append(CLASSES[chosen])
    return labels


def test_labels(pictures: int, seed: int) -> list[str]:
    """Class of each test picture: every ten in a row hold each class once, in an order of their own."""
    order = [CLASSES[k] for block in range(-(-pictures // 10)) for k in np.random.default_rng([seed, 3, block]).permutation(10)]
    return order[:pictures]


def _path(seed: int, split: int, number: int, label: str) -> str:
    """Where the picture lies in the set, named as the competition names its own."""
    if split == TEST:
        return f"test_images/{number}.jpeg"
    code = base64.urlsafe_b64encode(hashlib.sha256(f"{seed} {number}".encode()).digest()).decode()
    return f"train_images/{label}/OIP-{code[:27]}.jpeg"


def _draw(seed: int, split: int, number: int, label: str, size: tuple[int, int]) -> tuple[np.ndarray, int]:
    """One picture, uint8 (H, W, 3) RGB of about `size` (width, height; a quarter of them upright), and its JPEG quality."""
    rng = np.random.default_rng([seed, split, number])
    width, height = round(size[0] * rng.uniform(0.8, 1.1)), round(size[1] * rng.uniform(0.75, 1.15))
    if rng.random() < 0.25:
        width, height = height, width
    quality = int(rng.integers(60, 96))
    return picture(label, height, width, rng), quality


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="420"))


def _write(root: str, seed: int, size: tuple[int, int], split: int, first: int, labels: list[str]) -> int:
    """Draw and write pictures `first`, `first` + 1, ... of `labels`; runs in any process. Returns how many."""
    fs, base = storage.filesystem(root)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the processes share the cores already
    try:
        files = {
            storage.join(base, _path(seed, split, number, label)): _jpeg(*_draw(seed, split, number, label, size))
            for number, label in enumerate(labels, first)
        }
    finally:
        cv2.setNumThreads(threads)
    try:
        fs.pipe(files)  # not synced file by file: demo.json says when all are there
    except OSError as error:
        raise UserError(f"{root}: cannot be written ({error.strerror or error}); free space or choose another place") from error
    return len(files)


def _write_all(jobs: list[tuple[Any, ...]], processes: int) -> Iterator[int]:
    """Run `_write` on all jobs, here or in `processes` new processes, and yield the number of pictures of each as it is done, in order."""
    if processes == 1:
        yield from itertools.starmap(_write, jobs)
        return
    # spawn: the caller may hold threads (torch, Ray) that a fork would break
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_write, *zip(*jobs, strict=True))


def _plant(root: str, seed: int, size: tuple[int, int], labels: list[str]) -> list[dict[str, str]]:
    """Add the known defects to the training folder; returns kind, path (under the root), the original's path `of`, the class it shows, and a note."""
    planted: list[dict[str, str]] = []

    def fresh(number: int, label: str) -> tuple[np.ndarray, int]:
        return _draw(seed, PLANTED, number, label, size)

    def add(kind: str, label: str, suffix: str, content: bytes, note: str, of: str = "", shows: str | None = None) -> None:
        path = f"train_images/{label}/defect-{kind.replace(' ', '-')}.{suffix}"
        storage.write_bytes(storage.join(root, path), content)
        planted.append({"kind": kind, "path": path, "of": of, "shows": label if shows is None else shows, "note": note})

    def saved(image: np.ndarray, mode: str = "RGB", kind: str = "JPEG", **options: Any) -> bytes:
        sink = io.BytesIO()
        Image.fromarray(image).convert(mode).save(sink, kind, **options)
        return sink.getvalue()

    def original(label: str) -> tuple[np.ndarray, int, str]:
        number = labels.index(label)
        return (*_draw(seed, TRAIN, number, label, size), _path(seed, TRAIN, number, label))

    whole = _jpeg(*fresh(0, "cane"))
    add("truncated", "cane", "jpeg", whole[: len(whole) * 2 // 5], "the file ends early", shows="")
    add("empty", "cavallo", "jpeg", b"", "no bytes at all", shows="")
    page = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"
    add("html", "gallina", "jpeg", page, "an error page saved as a picture", shows="")
    add("wrong extension", "gatto", "jpeg", saved(fresh(1, "gatto")[0], kind="PNG"), "a PNG file")

    image, quality, path = original("ragno")
    add("identical copy", "ragno", "jpeg", _jpeg(image, quality), "the same bytes in the same class", path)
    image, quality, path = original("cane")
    add("contradictory copy", "gatto", "jpeg", _jpeg(image, quality), "the same bytes under another class", path, "cane")
    image, quality, path = original("mucca")
    add("mirrored copy", "mucca", "jpeg", _jpeg(image[:, ::-1], 55), "mirrored and compressed again", path)
    image, quality, path = original("pecora")
    h, w = image.shape[:2]
    add("cropped copy", "pecora", "jpeg", _jpeg(image[h // 25 :, : w - w // 25], 80), "4 % cut off the top and the right", path)

    add("wrong label", "farfalla", "jpeg", _jpeg(*fresh(2, "ragno")), "a spider among the butterflies", shows="ragno")
    add("cmyk", "elefante", "jpeg", saved(fresh(3, "elefante")[0], "CMYK", quality=85), "four inks instead of RGB")
    grey = cv2.cvtColor(fresh(4, "scoiattolo")[0], cv2.COLOR_RGB2GRAY)
    add("16 bit", "scoiattolo", "png", cv2.imencode(".png", grey.astype(np.uint16) * 257)[1].tobytes(), "16-bit greyscale")
    frames = [Image.fromarray(np.roll(fresh(5, "cavallo")[0], 9 * step, 1)) for step in range(3)]
    sink = io.BytesIO()
    frames[0].save(sink, "GIF", save_all=True, append_images=frames[1:], duration=200, loop=0)
    add("animated", "cavallo", "gif", sink.getvalue(), "three frames")
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn a quarter clockwise to view
    add("exif rotated", "cane", "jpeg", saved(np.rot90(fresh(6, "cane")[0]), quality=85, exif=exif), "lies on its side, EXIF says how to turn it")
    return planted


def _finished(root: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a whole demo set of these arguments at `root`; None where there is nothing yet, or only an interrupted run of the same."""
    fs, path = storage.filesystem(root)
    fs.invalidate_cache()
    try:
        found = storage.read_json(storage.join(root, INFO))
    except FileNotFoundError:
        if fs.exists(path) and fs.ls(path):
            raise UserError(f"{root}: holds files that are not a demo set ({INFO} is missing); choose an empty or new folder") from None
        return None
    except (NotADirectoryError, ValueError) as error:
        raise UserError(f"{root}: is not a demo set ({error}); choose an empty or new folder") from error
    if found.get("arguments") != arguments:
        raise UserError(f"{root}: holds a demo set of other arguments ({found.get('arguments')}); remove it or choose another folder")
    result: dict[str, Any] | None = found["result"]
    return result


def write_demo(
    out: str,
    *,
    pictures: int = 1200,
    test_pictures: int = 100,
    seed: int = 0,
    defects: bool = False,
    size: tuple[int, int] = (300, 225),
    processes: int = 0,
) -> dict[str, Any]:
    """Write the demo set to `out`, a local folder or s3:// prefix, and say what is in it.

    The layout is the competition's: `train_images/<class>/OIP-<hash>.jpeg` with the seed's class names and imbalance, `test_images/<n>.jpeg`
    unlabelled and class-balanced, `sample_submission.csv` (header id,category; one constant class) and the answer key `answers.csv`. `size` is the
    usual (width, height) in pixels; the pictures vary around it. `defects` adds files with known defects to the training folder and lists them in
    `defects.json` too. `processes` 0 means one a core, or this one alone where pictures are few; more than one starts new interpreters, so a script
    that calls this needs the usual `if __name__ == "__main__":`.

    Returns root, pictures and counts (files in the training folder, in all and by class, planted ones included), test_pictures, classes, seconds and
    defects (list of dicts: kind, path, of, shows, note). A folder that holds exactly this set already is left as it is, and an interrupted run is
    taken up again. Raises UserError for arguments that cannot be, for a folder that holds anything else, and where nothing can be written.
    """
    started = time.monotonic()
    root = storage.absolute(out)
    if pictures < len(CLASSES) or test_pictures < 0 or seed < 0 or min(size) < 32 or processes < 0:
        raise UserError(
            f"demo set of pictures={pictures}, test_pictures={test_pictures}, seed={seed}, size={size[0]}x{size[1]}, processes={processes}: "
            f"it takes at least {len(CLASSES)} pictures (one a class), sides of at least 32 pixels and no negative number"
        )
    arguments = {"version": VERSION, "pictures": pictures, "test_pictures": test_pictures, "seed": seed, "defects": defects, "size": list(size)}
    result = _finished(root, arguments)
    if result is not None:
        return {**result, "root": root, "seconds": round(time.monotonic() - started, 3)}

    storage.write_json(storage.join(root, INFO), {"arguments": arguments, "result": None})
    if not storage.is_remote(root):
        for folder in ("test_images", *(f"train_images/{name}" for name in CLASSES)):
            os.makedirs(storage.join(root, folder), exist_ok=True)
    labels, answers = train_labels(pictures), test_labels(test_pictures, seed)
    jobs = [
        (root, seed, size, split, first, names[first : first + CHUNK])
        for split, names in ((TRAIN, labels), (TEST, answers))
        for first in range(0, len(names), CHUNK)
    ]
    total = pictures + test_pictures
    done, told = 0, started
    for count in _write_all(jobs, processes or (1 if total < 8 * CHUNK else min(os.cpu_count() or 1, len(jobs)))):
        done, now = done + count, time.monotonic()
        if now - told > 3:
            told, rate = now, done / (now - started)
            print(f"demo set: {done:,} of {total:,} pictures, {rate:,.0f}/s, {(total - done) / rate:,.0f} s left", file=sys.stderr, flush=True)

    planted = _plant(root, seed, size, labels) if defects else []
    if defects:
        storage.write_json(storage.join(root, "defects.json"), planted)
    for name, classes in (("sample_submission.csv", ["cane"] * test_pictures), ("answers.csv", answers)):
        rows = [f"{number}.jpeg,{label}\n" for number, label in enumerate(classes)]
        storage.write_bytes(storage.join(root, name), ("id,category\n" + "".join(rows)).encode())
    counts = Counter(labels) + Counter(defect["path"].split("/")[1] for defect in planted)
    result = {
        "root": root,
        "pictures": sum(counts.values()),
        "test_pictures": test_pictures,
        "classes": CLASSES,
        "counts": {name: counts[name] for name in CLASSES},
        "seconds": round(time.monotonic() - started, 3),
        "defects": planted,
    }
    storage.write_json(storage.join(root, INFO), {"arguments": arguments, "result": result})
    return result
