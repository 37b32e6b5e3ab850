"""The exported ONNX files against `predict`: validation images as files of many sizes and modes, through the script
beside the model."""

from __future__ import annotations

import math
import runpy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from animalclf.data.prepared_set import Prepared
from animalclf.data.resize import decoded_side
from animalclf.data.run_images import prepared_set_of
from animalclf.data.sampler import sampling_plan
from animalclf.data.shards import read_shard
from animalclf.inference.images import decoded_image
from animalclf.inference.model import Model
from animalclf.rows import ExportCheck
from animalclf.runs import Run
from animalclf.utils.canvas import PADDING

TOLERANCE = 1e-3
"""Largest difference of a probability: Pillow and `predict` decode some files a little differently."""
SIZES = (0.4, 2.5)  # of a file, as a factor of the stored sides
LARGE_SIZES = (1.0, 1.2)  # of a photograph, as a factor of the shorter side from which it is decoded at 1/2 or 1/4
GRAIN = 12  # of 255: what a camera adds to each pixel of it, at most
EXIF_ORIENTATION = 0x0112


def check(run: Run, folder: Path, files: Sequence[str], count: int) -> list[ExportCheck]:
    """Compare each of the ONNX `files` of the export `folder` with the run's model in fp32, on `count` files made of
    validation images. Raises UserError if the run's prepared set cannot be opened."""
    script = runpy.run_path(str(folder / "predict_onnx.py"))

    def probabilities(paths: Sequence[str], file: str) -> np.ndarray:
        session = script["open_model"](file)
        return np.stack([script["probabilities"](path, session) for path in paths])

    def of_pixels(paths: Sequence[str], file: str) -> np.ndarray:
        """Of the pixels that `predict` decodes."""
        session = script["open_model"](file)
        images = (decoded_image(Path(path).read_bytes(), path, model.config.data)[None] for path in paths)
        return np.concatenate([session.run(["probabilities"], {"images": image})[0] for image in images])

    model = Model(run.root, device="cpu")
    model.config = replace(model.config, train=replace(model.config.train, precision="fp32"))
    split, images, labels = _validation_images(prepared_set_of(run), model, count)
    min_side = decoded_side(model.config.data.stored_size, model.config.data.resize)
    with tempfile.TemporaryDirectory() as temporary:
        plain = [_save_plain(image, number, Path(temporary)) for number, image in enumerate(images)]
        varied = [
            save_varied(images[number % len(images)], number, Path(temporary), min_side) for number in range(count)
        ]
        expected = [model.predict_proba(paths) for paths in (plain, varied)]
        return [
            _compare(
                file,
                split,
                [probabilities(plain, file), probabilities(varied, file), of_pixels(varied, file)],
                expected,
                labels,
            )
            for file in files
        ]


def _compare(
    file: str, split: str, exported: Sequence[np.ndarray], expected: Sequence[np.ndarray], labels: np.ndarray
) -> ExportCheck:
    """`exported`, `expected`: probabilities of the images (N, C) and of the varied files (M, C); `exported` also those
    of the pixels of these files."""
    (plain, varied, pixels), (plain_expected, varied_expected) = exported, expected
    return ExportCheck(
        file=file,
        split=split,
        images=len(plain),
        files=len(varied),
        same_class=int((varied.argmax(1) == varied_expected.argmax(1)).sum()),
        largest_difference=float(np.abs(varied - varied_expected).max()),
        largest_of_pixels=float(np.abs(pixels - varied_expected).max()),
        accuracy=float((plain.argmax(1) == labels).mean()),
        accuracy_of_predict=float((plain_expected.argmax(1) == labels).mean()),
    )


def _validation_images(prepared: Prepared, model: Model, count: int) -> tuple[str, list[np.ndarray], np.ndarray]:
    """The split val, or train without validation images; up to `count` of its images uint8 (H, W, 3), evenly spread,
    and their labels int64."""
    plan = sampling_plan(prepared, model.config)
    split = "val" if len(plan.rows["val"]) else "train"
    rows = np.sort(plan.rows[split])
    rows = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    images: dict[int, np.ndarray] = {}
    for path in prepared.shard_paths():
        shard, index = read_shard(path, prepared.stored_size)
        for position in np.flatnonzero(np.isin(index, rows)):
            images[int(index[position])] = _without_padding(shard[position], model.config.keeps_shape)
    return split, [images[int(row)] for row in rows], prepared.labels[rows]


def _without_padding(image: np.ndarray, keeps_shape: bool) -> np.ndarray:
    if not keeps_shape:
        return image.copy()
    filled = (image != PADDING).any(2)
    height, width = (int(np.flatnonzero(filled.any(axis)).max(initial=0)) + 1 for axis in (1, 0))
    return image[:height, :width].copy()


def _save_plain(image: np.ndarray, number: int, folder: Path) -> str:
    path = folder / f"plain-{number}.png"
    Image.fromarray(image).save(path)
    return str(path)


# ------------------------------------------------------------------------------------------------ files of every kind


def save_varied(image: np.ndarray, number: int, folder: Path, min_side: int) -> str:
    """Write `image` uint8 (H, W, 3) as a file of another size and of the mode that `number` chooses; its path. Some are
    photographs that `predict` decodes at a half or a quarter of their sides, at least `min_side` then."""
    random = np.random.default_rng(number)
    kind, path = number % len(KINDS), folder / f"varied-{number}"
    if kind < len(_PHOTOGRAPHS):
        quarter = number // len(KINDS) % 2
        photograph = _photograph(image, (4 if quarter else 2) * min_side, random)
        return str(KINDS[kind](photograph, path, random))
    sides = [max(8, round(side * factor)) for side, factor in zip(image.shape, random.uniform(*SIZES, 2), strict=False)]
    resized = Image.fromarray(image).resize((sides[1], sides[0]), Image.Resampling.BICUBIC)
    return str(KINDS[kind](resized, path, random))


def _photograph(image: np.ndarray, min_side: int, random: np.random.Generator) -> Image.Image:
    """`image` uint8 (H, W, 3) enlarged, with the grain of a camera; of a thin one a part."""
    image = image[: 2 * image.shape[1], : 2 * image.shape[0]]
    factor = min_side * random.uniform(*LARGE_SIZES) / min(image.shape[:2])
    height, width = (math.ceil(side * factor) for side in image.shape[:2])
    large = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = random.integers(-GRAIN, GRAIN + 1, large.shape, np.int16)
    return Image.fromarray((large + grain).clip(0, 255).astype(np.uint8))


def _jpeg(mode: str, **options: Any) -> Callable[[Image.Image, Path, np.random.Generator], Path]:
    def save(image: Image.Image, path: Path, random: np.random.Generator) -> Path:
        quality = int(random.integers(60, 96))
        image.convert(mode).save(file := path.with_suffix(".jpg"), quality=quality, **options)
        return file

    return save


def _turned(suffix: str) -> Callable[[Image.Image, Path, np.random.Generator], Path]:
    def save(image: Image.Image, path: Path, random: np.random.Generator) -> Path:
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = int(random.integers(2, 9))
        image.save(file := path.with_suffix(suffix), exif=exif, quality=90)
        return file

    return save


def _sixteen_bits(suffix: str) -> Callable[[Image.Image, Path, np.random.Generator], Path]:
    """Grey, of which every second file uses 12 bits only, as from many cameras."""

    def save(image: Image.Image, path: Path, random: np.random.Generator) -> Path:
        shift = int(random.choice([4, 8]))
        values = np.asarray(image.convert("L")).astype(np.uint16) << shift
        values += random.integers(0, 1 << shift, values.shape, np.uint16)
        Image.fromarray(values).save(file := path.with_suffix(suffix))
        return file

    return save


def _lossless(mode: str, suffix: str) -> Callable[[Image.Image, Path, np.random.Generator], Path]:
    def save(image: Image.Image, path: Path, random: np.random.Generator) -> Path:
        converted = image.convert(mode)
        if "A" in mode:
            alpha = np.linspace(0, 255, image.width * image.height).reshape(image.height, image.width)
            converted.putalpha(Image.fromarray(alpha.astype(np.uint8)))
        converted.save(file := path.with_suffix(suffix))
        return file

    return save


_PHOTOGRAPHS = (
    _jpeg("RGB"), _turned(".jpg"), _jpeg("RGB", progressive=True), _jpeg("RGB", subsampling="4:4:4"), _jpeg("L"),
    _jpeg("CMYK"),
)  # fmt: skip
KINDS = (
    *_PHOTOGRAPHS, _jpeg("RGB"), _turned(".jpg"), _jpeg("L"), _jpeg("CMYK"), _lossless("RGB", ".png"),
    _lossless("P", ".png"), _lossless("RGBA", ".png"), _lossless("LA", ".png"), _lossless("L", ".png"),
    _lossless("1", ".png"), _turned(".png"), _sixteen_bits(".png"), _lossless("RGB", ".tif"),
    _lossless("CMYK", ".tif"), _turned(".tif"), _sixteen_bits(".tif"), _lossless("RGB", ".bmp"),
    _lossless("P", ".gif"), _lossless("RGBA", ".webp"),
)  # fmt: skip
