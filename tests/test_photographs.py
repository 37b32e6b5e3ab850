"""Large JPEG images, decoded at a reduced size: the pixels, the files that are refused, and what `prepare` records."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from animalclf import config as configuration
from animalclf.config import Data
from animalclf.data import jpeg
from animalclf.data.decode import UnreadableImage, decode
from animalclf.data.resize import MIN_SIDE, decoded_side, stored_image
from animalclf.data.shards import read_shard
from animalclf.duplicates import find
from animalclf.inference import model, reading
from animalclf.prepare import task
from animalclf.prepare.manifest import fingerprint

MIN = 112  # the shorter side after the reduction of the images that `photograph` draws


def photograph(height: int = 460, width: int = 604, seed: int = 0) -> np.ndarray:
    """Structure at all scales, edges and grain."""
    generator = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.float32)
    for side in (4, 16, 64, 256):
        noise = 90 / side**0.5 * generator.standard_normal((side, side, 3), np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.circle(image, (width // 3, height // 2), height // 4, (200, 40, 90), -1)
    return (image + 3 * generator.standard_normal(image.shape, np.float32)).clip(0, 255).astype(np.uint8)


def encoded(image: np.ndarray, mode: str = "RGB", **options: Any) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image).convert(mode).save(sink, "JPEG", **{"quality": 92, **options})
    return sink.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def error(data: bytes, size: int = 45) -> tuple[float, float]:
    """Mean and maximum difference of the stored image from the one decoded at the full size."""
    pair = (stored_image(decode(data, min_side=side).image, size, "squash").astype(int) for side in (0, MIN))
    difference = np.abs(np.subtract(*pair))
    return float(difference.mean()), float(difference.max())


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": 2},
        {"subsampling": 1},
        {"subsampling": 0},
        {"mode": "L"},
        {"mode": "CMYK"},
        {"progressive": True},
        {"restart_marker_blocks": 5},
        *({"exif": exif(orientation)} for orientation in (3, 6, 8)),
    ],
    ids=["4:2:0", "4:2:2", "4:4:4", "grey", "CMYK", "progressive", "restarts", "turned", "right", "left"],
)
@pytest.mark.parametrize("sides", [(460, 604), (461, 605)], ids=str)
def test_a_reduced_image_has_the_pixels_of_the_whole_one(options: dict[str, Any], sides: tuple[int, int]) -> None:
    data = encoded(photograph(*sides), **options)
    whole, reduced = decode(data), decode(data, min_side=MIN)
    assert reduced.scale == 4 and (whole.scale, whole.height, whole.width) == (1, *whole.image.shape[:2])
    assert (reduced.height, reduced.width, reduced.note) == (whole.height, whole.width, whole.note)
    assert reduced.image.flags.c_contiguous and reduced.image.shape[0] in (whole.height // 4, whole.height // 4 - 1)
    mean, largest = error(data)
    # The reduced colours of 4:2:2 have half of the columns.
    limits = (1.2, 20) if options == {"subsampling": 1} else (0.6, 7)
    assert mean < limits[0] and largest <= limits[1]


def test_sides_that_are_no_multiples_do_not_move_the_pixels() -> None:
    """Slopes of 5 levels a pixel, which without the correction move by up to 3 pixels at the right edge."""
    wave = np.abs(np.arange(605) % 100 - 50) * 5
    for orientation in (1, 3):
        image = wave[None, :, None].repeat(461, 0).repeat(3, 2).astype(np.uint8)
        assert error(encoded(image, exif=exif(orientation)))[1] <= 2


def test_small_images_and_other_formats_are_not_reduced() -> None:
    data, large, sink = encoded(photograph(2 * MIN - 1, 400)), encoded(photograph()), io.BytesIO()
    assert np.array_equal(decode(data, min_side=MIN).image, decode(data).image)
    Image.fromarray(photograph()).save(sink, "PNG", compress_level=0)
    assert decode(sink.getvalue(), min_side=MIN).scale == 1
    sides = (2 * MIN - 1, 2 * MIN, 4 * MIN, 8 * MIN - 1, 8 * MIN, 99 * MIN)
    assert [jpeg.scale_for(large, side, 99 * MIN, MIN) for side in sides] == [1, 2, 4, 4, 8, 8]


def lossless(height: int, width: int) -> bytes:
    """A lossless JPEG (ITU-T T.81, annex H) of three channels, whose differences are all 0."""
    segments = [
        (0xEE, b"Adobe\0\x64\0\0\0\0\0"),
        (0xC3, struct.pack(">BHHB", 8, height, width, 3) + b"\1\x11\0\2\x11\0\3\x11\0"),
        (0xC4, b"\0\1" + bytes(15) + b"\0"),
        (0xDA, b"\3\1\0\2\0\3\0\1\0\0"),
    ]
    header = b"".join(b"\xff" + struct.pack(">BH", marker, len(body) + 2) + body for marker, body in segments)
    return b"\xff\xd8" + header + bytes(height * width * 3 // 8) + b"\xff\xd9"


def test_a_lossless_jpeg_is_not_reduced() -> None:
    """libjpeg-turbo's reduction of one ends the process."""
    data = lossless(320, 400)
    assert (decode(data).image == 128).all()
    assert jpeg.scale_for(data, 320, 400, 10) == 1
    hidden = encoded(photograph())
    start = hidden.index(b"\xff\xdb")
    for extra in (b"abc", b"\xff", b"\xff\xd0", b"\xff\xc3\0\2"):
        assert jpeg.scale_for(hidden[:start] + extra + hidden[start:], 460, 604, MIN) == 1


@pytest.mark.parametrize("progressive", [False, True])
def test_a_damaged_file_is_refused_for_the_same_reason(progressive: bool) -> None:
    data = encoded(photograph(204, 268), progressive=progressive, exif=exif(6))
    generator, reasons = np.random.default_rng(0), set()
    for number in range(40):
        damaged = bytearray(data)
        for place in generator.integers(0, len(data), 2).tolist():
            damaged[place] = int(generator.integers(256))
        damaged = damaged[: -int(generator.integers(1, 3000))] if number % 3 == 0 else damaged
        outcomes = []
        for min_side in (0, 50):
            try:
                decoded = decode(bytes(damaged), name="a.png", min_side=min_side)
                outcomes.append((decoded.note, decoded.height, decoded.width))
            except UnreadableImage as reason:
                outcomes.append((str(reason), 0, 0))
        assert outcomes[0] == outcomes[1], number
        reasons.add(outcomes[0][0].partition(":")[0])
    assert {"truncated", "damaged"} & reasons and any("JPEG named" in reason for reason in reasons)


def test_blocks_of_equal_means_are_no_single_colour() -> None:
    board = (np.indices((320, 400)).sum(0) % 2 * 200 + 20).astype(np.uint8)[:, :, None].repeat(3, 2)
    reduced = decode(encoded(board, quality=100, subsampling=0), min_side=40)
    assert reduced.scale == 8 and len(np.unique(reduced.image)) == 1 and reduced.note == ""
    assert decode(encoded(np.full((320, 400, 3), 9, np.uint8)), min_side=40).note == "single colour"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph of twice MIN_SIDE, rotated by EXIF, a small copy of it, and another photograph."""
    folder = tmp_path_factory.mktemp("photos")
    image = photograph(2 * MIN_SIDE, 2 * MIN_SIDE + 36)
    (folder / "large.jpg").write_bytes(encoded(image, exif=exif(6)))
    small = cv2.resize(image, (400, 388), interpolation=cv2.INTER_AREA)
    (folder / "small.jpg").write_bytes(encoded(np.rot90(small, -1), quality=80))
    (folder / "other.jpg").write_bytes(encoded(photograph(400, 500, seed=1)))
    return folder


def measured(photos: Path, out: Path, size: int, mode: str = "squash") -> dict[str, np.ndarray]:
    chunk = pd.DataFrame({"index": range(3), "path": ["large.jpg", "other.jpg", "small.jpg"], "bytes": 9, "shard": 0})
    return task.measure(chunk, task.Job(str(photos), str(out), size, 10**8, resize=mode))


def test_near_duplicates_of_a_large_photograph_do_not_depend_on_the_stored_size(photos: Path, tmp_path: Path) -> None:
    assert decoded_side(288, "squash") == decoded_side(384, "keep") == MIN_SIDE < decoded_side(320, "squash")
    columns = measured(photos, tmp_path, 32)
    assert list(columns["scale"]) == [2, 1, 1] and columns["scale"].dtype == np.int8
    assert [columns[name][0] for name in ("height", "width")] == [2 * MIN_SIDE + 36, 2 * MIN_SIDE]
    larger = measured(photos, tmp_path, 512)
    assert list(larger["scale"]) == [1, 1, 1] and np.array_equal(larger["signature"], columns["signature"])
    matches = find.find_duplicates(
        list(columns["sha256"]),
        columns["signature"],
        lambda row: task.read_image(str(photos), 10**8, ["large.jpg", "other.jpg", "small.jpg"][row]),
    )
    assert list(matches["group"]) == [0, 1, 0] and matches["confidence"][2] > 0.9


def test_prediction_sees_the_pixels_that_prepare_stores(photos: Path, tmp_path: Path) -> None:
    config = configuration.load("quick")
    size, mode = config.data.stored_size, config.data.resize
    measured(photos, tmp_path, size, mode)
    stored = read_shard(str(tmp_path / task.shard_name(0)), size)[0][0]
    block = reading.read_images(str(photos), ["large.jpg"], np.arange(1), config)
    pixels = model._pixels(photos / "large.jpg", 0, config)
    assert min(pixels.shape[:2]) == MIN_SIDE and np.array_equal(stored_image(pixels, size, mode), stored)
    assert np.array_equal(block["image"][0], stored)


def test_the_fingerprint_of_a_set_changes_only_with_reduced_images() -> None:
    row = {"path": "a.jpg", "label": "a", "split": "train", "sha256": "0", "status": "ok"}
    of_scale = [fingerprint(pd.DataFrame([{**row, "scale": scale}]), Data()) for scale in (1, 2, 4)]
    assert len(set(of_scale)) == 3
    assert (
        of_scale[0] == "624e84c8c3178678357b38f9ee5ae6a6701740ba9e1546db5ed5320b1021c70f"
    )  # of the same row before images were reduced
