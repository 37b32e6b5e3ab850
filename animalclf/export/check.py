"""The exported ONNX files against `predict`: validation images as files of many sizes and modes, through the script
beside the model."""

from __future__ import annotations

import runpy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from animalclf.data.prepared_set import Prepared
from animalclf.data.run_images import prepared_set_of
from animalclf.data.sampler import sampling_plan
from animalclf.data.shards import read_shard
from animalclf.inference.model import Model
from animalclf.rows import ExportCheck
from animalclf.runs import Run
from animalclf.utils.canvas import PADDING

TOLERANCE = 1e-3
"""Largest difference of a probability, for files that Pillow and `predict` decode a little differently."""
SIZES = (0.4, 2.5)  # of a file, as a factor of the stored sides
EXIF_ORIENTATION = 0x0112


def check(run: Run, folder: Path, files: Sequence[str], count: int) -> list[ExportCheck]:
    """Compare each of the ONNX `files` of the export `folder` with the run's model in fp32, on `count` files made of
    validation images. Raises UserError if the run's prepared set cannot be opened."""
    probabilities = runpy.run_path(str(folder / "predict_onnx.py"))["probabilities"]
    model = Model(run.root, device="cpu")
    model.config = replace(model.config, train=replace(model.config.train, precision="fp32"))
    images, labels = _validation_images(prepared_set_of(run), model, count)
    with tempfile.TemporaryDirectory() as temporary:
        plain = [_save_plain(image, number, Path(temporary)) for number, image in enumerate(images)]
        varied = [save_varied(images[number % len(images)], number, Path(temporary)) for number in range(count)]
        expected, expected_varied = model.predict_proba(plain), model.predict_proba(varied)
        return [
            _compare(file, probabilities(plain, file), probabilities(varied, file), expected, expected_varied, labels)
            for file in files
        ]


def _compare(
    file: str,
    plain: np.ndarray,
    varied: np.ndarray,
    expected: np.ndarray,
    expected_varied: np.ndarray,
    labels: np.ndarray,
) -> ExportCheck:
    return ExportCheck(
        file=file,
        images=len(plain),
        files=len(varied),
        same_class=int((varied.argmax(1) == expected_varied.argmax(1)).sum()),
        largest_difference=float(np.abs(varied - expected_varied).max()),
        accuracy=float((plain.argmax(1) == labels).mean()),
        accuracy_of_predict=float((expected.argmax(1) == labels).mean()),
    )


def _validation_images(prepared: Prepared, model: Model, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Up to `count` validation images (without validation images: training images) uint8 (H, W, 3), evenly spread, and
    their labels int64."""
    plan = sampling_plan(prepared, model.config)
    rows = np.sort(plan.rows["val"] if len(plan.rows["val"]) else plan.rows["train"])
    rows = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    images: dict[int, np.ndarray] = {}
    for path in prepared.shard_paths():
        shard, index = read_shard(path, prepared.stored_size)
        for position in np.flatnonzero(np.isin(index, rows)):
            images[int(index[position])] = _without_padding(shard[position], model.config.keeps_shape)
    return [images[int(row)] for row in rows], prepared.labels[rows]


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


def save_varied(image: np.ndarray, number: int, folder: Path) -> str:
    """Write `image` uint8 (H, W, 3) as a file of another size and of the mode that `number` chooses; its path."""
    random = np.random.default_rng(number)
    sides = [max(8, round(side * factor)) for side, factor in zip(image.shape, random.uniform(*SIZES, 2), strict=False)]
    resized = Image.fromarray(image).resize((sides[1], sides[0]), Image.Resampling.BICUBIC)
    return str(_KINDS[number % len(_KINDS)](resized, folder / f"varied-{number}", random))


def _jpeg(mode: str) -> Callable[[Image.Image, Path, np.random.Generator], Path]:
    def save(image: Image.Image, path: Path, random: np.random.Generator) -> Path:
        image.convert(mode).save(file := path.with_suffix(".jpg"), quality=int(random.integers(60, 96)))
        return file

    return save


def _turned(image: Image.Image, path: Path, random: np.random.Generator) -> Path:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = int(random.integers(2, 9))
    image.save(file := path.with_suffix(".jpg"), exif=exif, quality=90)
    return file


def _lossless(mode: str, suffix: str) -> Callable[[Image.Image, Path, np.random.Generator], Path]:
    def save(image: Image.Image, path: Path, random: np.random.Generator) -> Path:
        converted = image.convert(mode)
        if "A" in mode:
            alpha = np.linspace(0, 255, image.width * image.height).reshape(image.height, image.width)
            converted.putalpha(Image.fromarray(alpha.astype(np.uint8)))
        converted.save(file := path.with_suffix(suffix))
        return file

    return save


_KINDS = (
    _jpeg("RGB"), _turned, _jpeg("L"), _jpeg("CMYK"), _lossless("RGB", ".png"), _lossless("P", ".png"),
    _lossless("RGBA", ".png"), _lossless("LA", ".png"), _lossless("L", ".png"), _lossless("RGB", ".tif"),
    _lossless("RGB", ".bmp"),
)  # fmt: skip
