"""The demo set: layout, balance, the same bytes every time, defects that are what they say, and care for what lies in the folder already."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pytest
from PIL import Image, ImageOps

from animalclf.demo import dataset as demo
from animalclf.demo import draw
from animalclf.errors import UserError

SMALL = {"images": 60, "test_images": 20, "size": (96, 72)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One small set with all defects."""
    return demo.write_demo(str(tmp_path_factory.mktemp("demo") / "set"), defects=True, **SMALL)


def digests(root: str) -> dict[str, str]:
    """sha256 of every file but demo.json, which tells the time."""
    files = [path for path in Path(root).rglob("*") if path.is_file() and path.name != demo.INFO]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows(root: str, name: str) -> list[dict[str, str]]:
    with open(Path(root) / name, newline="") as file:
        return list(csv.DictReader(file))


def test_layout_and_result(made: dict[str, Any]) -> None:
    root = Path(made["root"])
    folders = sorted(path.name for path in (root / "train_images").iterdir())
    assert folders == made["classes"] == sorted(demo.CLASS_COUNTS)
    assert made["counts"] == {name: len(list((root / "train_images" / name).iterdir())) for name in folders}
    assert made["images"] == sum(made["counts"].values()) == 60 + len(made["defects"])
    assert sorted(path.name for path in (root / "test_images").iterdir()) == sorted(
        f"{number}.jpeg" for number in range(20)
    )
    assert made["test_images"] == 20


def test_images_are_rgb_jpegs_of_many_sizes_that_differ(made: dict[str, Any]) -> None:
    sizes, thumbs = set(), []
    for path in sorted(Path(made["root"]).glob("t*/**/*.jpeg")):
        if path.name.startswith("defect"):
            continue
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            sizes.add(image.size)
            thumbs.append(np.asarray(image.resize((24, 24)), float).ravel())
    assert len(thumbs) == 80 and len(sizes) > 40
    assert any(width > height for width, height in sizes) and any(width < height for width, height in sizes)
    distances = np.abs(np.stack(thumbs)[:, None] - np.stack(thumbs)[None]).mean(-1) + 255 * np.eye(80)
    assert distances.min() > 4


@pytest.mark.parametrize("images", [30, 137, 1200, 21179])
def test_classes_have_the_competitions_shares(images: int) -> None:
    labels = demo.train_labels(images)
    total = sum(demo.CLASS_COUNTS.values())
    for name, count in demo.CLASS_COUNTS.items():
        have = labels.count(name)
        assert have >= 3
        assert images < 100 or abs(have - max(3, images * count / total)) <= 2
    assert demo.train_labels(images + 500)[:images] == labels


def test_answer_key_is_balanced_and_the_sample_submission_fits(made: dict[str, Any]) -> None:
    answers, sample = rows(made["root"], "answers.csv"), rows(made["root"], "sample_submission.csv")
    assert [list(row) for row in answers[:1] + sample[:1]] == [["id", "category"]] * 2
    assert [row["id"] for row in answers] == [row["id"] for row in sample] == [f"{number}.jpeg" for number in range(20)]
    assert len({row["category"] for row in sample}) == 1 and sample[0]["category"] in demo.CLASSES
    categories = [row["category"] for row in answers]
    assert all(categories.count(name) == 2 for name in demo.CLASSES)
    assert categories[:10] != categories[10:]  # the number of an image does not tell its class


def test_same_seed_same_bytes_for_any_number_of_processes(made: dict[str, Any], tmp_path: Path) -> None:
    again = demo.write_demo(str(tmp_path / "two"), defects=True, processes=2, **SMALL)
    assert digests(again["root"]) == digests(made["root"])
    assert {**again, "root": "", "seconds": 0} == {**made, "root": "", "seconds": 0}


def test_a_larger_set_begins_with_the_smaller_and_another_seed_differs(made: dict[str, Any], tmp_path: Path) -> None:
    larger = digests(demo.write_demo(str(tmp_path / "larger"), images=70, test_images=21, size=(96, 72))["root"])
    plain = {
        path: digest
        for path, digest in digests(made["root"]).items()
        if path.endswith(".jpeg") and "defect" not in path
    }
    assert len(plain) == 80 and plain.items() <= larger.items()
    other = digests(demo.write_demo(str(tmp_path / "other"), seed=1, images=10, test_images=0, size=(96, 72))["root"])
    assert not set(other.values()) & set(plain.values())


def test_defects_are_listed_and_real(made: dict[str, Any]) -> None:
    root = Path(made["root"])
    assert json.loads((root / "defects.json").read_text()) == made["defects"]
    found = {defect["kind"]: defect for defect in made["defects"]}
    assert len(found) == 13
    content = {kind: (root / defect["path"]).read_bytes() for kind, defect in found.items()}
    source = {kind: (root / defect["of"]).read_bytes() for kind, defect in found.items() if defect["of"]}

    def opened(kind: str) -> Image.Image:
        return Image.open(io.BytesIO(content[kind]))

    with pytest.raises(OSError, match="truncated"):
        opened("truncated").load()
    assert content["empty"] == b"" and content["html"].startswith(b"<!DOCTYPE html>")
    assert opened("wrong extension").format == "PNG" and found["wrong extension"]["path"].endswith(".jpeg")
    assert (
        content["identical copy"] == source["identical copy"]
        and content["contradictory copy"] == source["contradictory copy"]
    )
    assert (
        found["contradictory copy"]["path"].split("/")[1]
        != found["contradictory copy"]["of"].split("/")[1]
        == found["contradictory copy"]["shows"]
    )
    assert (
        opened("cmyk").mode == "CMYK" and opened("16 bit").mode.startswith("I;16") and opened("animated").n_frames == 3
    )
    rotated = opened("exif rotated")
    assert rotated.getexif()[0x0112] == 6 and ImageOps.exif_transpose(rotated).size == rotated.size[::-1]
    assert found["wrong label"]["shows"] != found["wrong label"]["path"].split("/")[1]

    mirrored, cropped = (np.asarray(opened(kind), float) for kind in ("mirrored copy", "cropped copy"))
    parent = {kind: np.asarray(Image.open(io.BytesIO(data)), float) for kind, data in source.items()}
    assert np.abs(mirrored[:, ::-1] - parent["mirrored copy"]).mean() < 8
    height, width = cropped.shape[:2]
    assert cropped.shape != parent["cropped copy"].shape
    assert np.abs(cropped - parent["cropped copy"][-height:, :width]).mean() < 8


def test_a_whole_set_is_left_as_it_is(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_draw", None)  # nothing may be drawn
    again = demo.write_demo(made["root"], defects=True, **SMALL)
    assert {**again, "seconds": 0} == {**made, "seconds": 0}


def test_an_interrupted_run_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"images": 60, "test_images": 3, "size": (48, 36)}
    whole = demo.write_demo(str(tmp_path / "whole"), **arguments)
    draw, left = demo._draw, iter(range(55))

    def failing(*given: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return draw(*given)

    monkeypatch.setattr(demo, "_draw", failing)
    with pytest.raises(KeyboardInterrupt):
        demo.write_demo(str(tmp_path / "cut"), **arguments)
    monkeypatch.undo()
    with pytest.raises(UserError, match="other arguments"):
        demo.write_demo(str(tmp_path / "cut"), **{**arguments, "seed": 5})
    assert digests(demo.write_demo(str(tmp_path / "cut"), **arguments)["root"]) == digests(whole["root"])


def test_refuses_a_folder_with_anything_else(made: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(UserError, match=r"demo\.json is missing"):
        demo.write_demo(str(tmp_path), **SMALL)
    with pytest.raises(UserError, match="new folder"):
        demo.write_demo(str(tmp_path / "holiday.txt"), **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]
    with pytest.raises(UserError, match="other arguments"):
        demo.write_demo(made["root"], **{**SMALL, "images": 61})


@pytest.mark.parametrize(
    "wrong", [{"images": 9}, {"test_images": -1}, {"seed": -1}, {"size": (8, 8)}, {"processes": -1}]
)
def test_refuses_impossible_arguments(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 10 images"):
        demo.write_demo(str(tmp_path / "none"), **{**SMALL, **wrong})


def test_writes_to_an_object_store(made: dict[str, Any]) -> None:
    store = fsspec.filesystem("memory")
    result = demo.write_demo("memory://bucket/demo", defects=True, **SMALL)
    expected = digests(made["root"])
    assert {path.removeprefix("/bucket/demo/") for path in store.find("/bucket/demo")} == {*expected, demo.INFO}
    assert result["root"] == "memory://bucket/demo" and result["counts"] == made["counts"]
    name = next(iter(expected))
    assert hashlib.sha256(store.cat_file(f"/bucket/demo/{name}")).hexdigest() == expected[name]
    assert demo.write_demo("memory://bucket/demo", defects=True, **SMALL)["defects"] == made["defects"]
    with pytest.raises(UserError, match="other arguments"):
        demo.write_demo("memory://bucket/demo", **SMALL)


@pytest.mark.parametrize("name", draw.ANIMALS)
def test_the_animal_is_in_the_image(name: str) -> None:
    for number in range(12):
        canvas = np.zeros((225, 300, 4), np.uint8)
        mask = draw._animal(canvas, name, np.random.default_rng([7, number]))
        assert 0.02 < (mask > 127).mean() < 0.9
        assert canvas[mask == 255][:, :3].std() > 5


def test_an_animal_differs_from_image_to_image() -> None:
    """Pose, place, size and colours vary: no two masks or mean colours of a class agree."""
    for name in draw.ANIMALS:
        canvases = [np.zeros((72, 96, 4), np.uint8) for _ in range(6)]
        masks = [draw._animal(canvas, name, np.random.default_rng(number)) for number, canvas in enumerate(canvases)]
        colours = [canvas[mask == 255][:, :3].mean(0) for canvas, mask in zip(canvases, masks, strict=True)]
        for k in range(1, 6):
            assert all((masks[k] != other).mean() > 0.01 for other in masks[:k])
            assert all(np.abs(colours[k] - other).max() > 1 for other in colours[:k])


def test_every_part_has_a_known_group_and_colour() -> None:
    groups, colours = (
        {"body", "head", "tail", "leg", "both", "patches", "wool"},
        {*draw.PALETTE, "coat", "other", "shade", "dim"},
    )
    for options, parts in draw.ANIMALS.values():
        assert {group for group, *_ in parts} <= groups and {colour for _, colour, *_ in parts} <= colours
        assert set(options["coats"].split(",")) <= set(draw.PALETTE)
        assert options.get("foot", "coat") in colours


def test_large_images_are_possible() -> None:
    image = draw.draw("gatto", 700, 1100, np.random.default_rng(0))
    assert image.shape == (700, 1100, 3) and image.dtype == np.uint8
    assert cv2.Laplacian(image, cv2.CV_64F).std() > 1
