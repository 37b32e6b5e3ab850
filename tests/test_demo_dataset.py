"""The demo set: layout, balance, reproducible bytes, defects, and existing files in its folder."""

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
def demo_set(tmp_path_factory: pytest.TempPathFactory) -> demo.DemoSet:
    """A small set with all defects."""
    return demo.write_demo(str(tmp_path_factory.mktemp("demo") / "set"), defects=True, **SMALL)


def digests(root: str) -> dict[str, str]:
    """sha256 by path of every file except demo.json, which has the time."""
    files = [path for path in Path(root).rglob("*") if path.is_file() and path.name != demo.INFO]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows(root: str, name: str) -> list[dict[str, str]]:
    with open(Path(root) / name, newline="") as file:
        return list(csv.DictReader(file))


def test_layout_and_result(demo_set: demo.DemoSet) -> None:
    root = Path(demo_set["root"])
    folders = sorted(path.name for path in (root / "train_images").iterdir())
    assert folders == demo_set["classes"] == sorted(demo.CLASS_COUNTS)
    assert demo_set["counts"] == {name: len(list((root / "train_images" / name).iterdir())) for name in folders}
    assert demo_set["images"] == sum(demo_set["counts"].values()) == 60 + len(demo_set["defects"])
    assert sorted(path.name for path in (root / "test_images").iterdir()) == sorted(
        f"{number}.jpeg" for number in range(20)
    )
    assert demo_set["test_images"] == 20


def test_images_are_different_rgb_jpegs_of_many_sizes(demo_set: demo.DemoSet) -> None:
    sizes, thumbs = set(), []
    for path in sorted(Path(demo_set["root"]).glob("t*/**/*.jpeg")):
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
def test_classes_have_the_competitions_fractions(images: int) -> None:
    labels = demo.train_labels(images)
    total = sum(demo.CLASS_COUNTS.values())
    for name, count in demo.CLASS_COUNTS.items():
        label_count = labels.count(name)
        assert label_count >= 3
        assert images < 100 or abs(label_count - max(3, images * count / total)) <= 2
    assert demo.train_labels(images + 500)[:images] == labels


def test_answer_key_is_balanced_and_the_sample_submission_fits(demo_set: demo.DemoSet) -> None:
    answers, sample = rows(demo_set["root"], "answers.csv"), rows(demo_set["root"], "sample_submission.csv")
    assert [list(row) for row in answers[:1] + sample[:1]] == [["id", "category"]] * 2
    assert [row["id"] for row in answers] == [row["id"] for row in sample] == [f"{number}.jpeg" for number in range(20)]
    assert len({row["category"] for row in sample}) == 1 and sample[0]["category"] in demo.CLASSES
    categories = [row["category"] for row in answers]
    assert all(categories.count(name) == 2 for name in demo.CLASSES)
    assert categories[:10] != categories[10:]  # the number of an image does not reveal its class


def test_same_seed_same_bytes_for_any_number_of_processes(demo_set: demo.DemoSet, tmp_path: Path) -> None:
    again = demo.write_demo(str(tmp_path / "two"), defects=True, processes=2, **SMALL)
    assert digests(again["root"]) == digests(demo_set["root"])
    assert {**again, "root": "", "seconds": 0} == {**demo_set, "root": "", "seconds": 0}


def test_a_larger_set_begins_with_the_smaller_and_another_seed_differs(demo_set: demo.DemoSet, tmp_path: Path) -> None:
    larger = digests(demo.write_demo(str(tmp_path / "larger"), images=70, test_images=21, size=(96, 72))["root"])
    plain = {
        path: digest
        for path, digest in digests(demo_set["root"]).items()
        if path.endswith(".jpeg") and "defect" not in path
    }
    assert len(plain) == 80 and plain.items() <= larger.items()
    reseeded = digests(
        demo.write_demo(str(tmp_path / "reseeded"), seed=1, images=10, test_images=0, size=(96, 72))["root"]
    )
    assert not set(reseeded.values()) & set(plain.values())


def test_defects_are_listed_and_real(demo_set: demo.DemoSet) -> None:
    root = Path(demo_set["root"])
    assert json.loads((root / "defects.json").read_text()) == demo_set["defects"]
    planted = {defect["kind"]: defect for defect in demo_set["defects"]}
    assert len(planted) == 13
    content = {kind: (root / defect["path"]).read_bytes() for kind, defect in planted.items()}
    source = {kind: (root / defect["of"]).read_bytes() for kind, defect in planted.items() if defect["of"]}

    def opened(kind: str) -> Image.Image:
        return Image.open(io.BytesIO(content[kind]))

    with pytest.raises(OSError, match="truncated"):
        opened("truncated").load()
    assert content["empty"] == b"" and content["html"].startswith(b"<!DOCTYPE html>")
    assert opened("wrong extension").format == "PNG" and planted["wrong extension"]["path"].endswith(".jpeg")
    assert (
        content["identical duplicate"] == source["identical duplicate"]
        and content["contradictory duplicate"] == source["contradictory duplicate"]
    )
    assert (
        planted["contradictory duplicate"]["path"].split("/")[1]
        != planted["contradictory duplicate"]["of"].split("/")[1]
        == planted["contradictory duplicate"]["shows"]
    )
    assert (
        opened("cmyk").mode == "CMYK" and opened("16 bit").mode.startswith("I;16") and opened("animated").n_frames == 3
    )
    rotated = opened("exif rotated")
    assert rotated.getexif()[0x0112] == 6 and ImageOps.exif_transpose(rotated).size == rotated.size[::-1]
    assert planted["wrong label"]["shows"] != planted["wrong label"]["path"].split("/")[1]

    mirrored, cropped = (np.asarray(opened(kind), float) for kind in ("mirrored duplicate", "cropped duplicate"))
    parent = {kind: np.asarray(Image.open(io.BytesIO(data)), float) for kind, data in source.items()}
    assert np.abs(mirrored[:, ::-1] - parent["mirrored duplicate"]).mean() < 8
    height, width = cropped.shape[:2]
    assert cropped.shape != parent["cropped duplicate"].shape
    assert np.abs(cropped - parent["cropped duplicate"][-height:, :width]).mean() < 8


def test_a_complete_set_is_not_drawn_again(demo_set: demo.DemoSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_draw", None)  # a call would fail
    again = demo.write_demo(demo_set["root"], defects=True, **SMALL)
    assert {**again, "seconds": 0} == {**demo_set, "seconds": 0}


def test_the_result_that_an_older_version_stored_has_the_current_keys(tmp_path: Path) -> None:
    arguments = {"images": 10, "test_images": 0, "size": (48, 36)}
    demo_set = demo.write_demo(str(tmp_path / "set"), **arguments)
    file = tmp_path / "set" / demo.INFO
    info = json.loads(file.read_text())
    for old, current in demo.OLD_KEYS.items():
        info["result"][old] = info["result"].pop(current)
    file.write_text(json.dumps(info))
    assert {**demo.write_demo(demo_set["root"], **arguments), "seconds": 0} == {**demo_set, "seconds": 0}


def test_an_interrupted_run_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"images": 60, "test_images": 3, "size": (48, 36)}
    complete = demo.write_demo(str(tmp_path / "complete"), **arguments)
    draw, calls = demo._draw, iter(range(55))

    def interrupted(*arguments: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(demo, "_draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.write_demo(str(tmp_path / "cut"), **arguments)
    monkeypatch.undo()
    with pytest.raises(UserError, match="other arguments"):
        demo.write_demo(str(tmp_path / "cut"), **{**arguments, "seed": 5})
    assert digests(demo.write_demo(str(tmp_path / "cut"), **arguments)["root"]) == digests(complete["root"])


def test_refuses_a_folder_with_anything_else(demo_set: demo.DemoSet, tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(UserError, match=r"demo\.json is missing"):
        demo.write_demo(str(tmp_path), **SMALL)
    with pytest.raises(UserError, match="new folder"):
        demo.write_demo(str(tmp_path / "holiday.txt"), **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]
    with pytest.raises(UserError, match="other arguments"):
        demo.write_demo(demo_set["root"], **{**SMALL, "images": 61})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": 9}, "--images 9: at least 10, one of each class"),
        ({"test_images": -1}, "--test-images -1: 0 or more"),
        ({"seed": -1}, "--seed -1: 0 or more"),
        ({"size": (8, 8)}, "size .8, 8.: sides of at least"),
        ({"processes": -1}, "processes -1: 0 or more"),
    ],
)
def test_refuses_impossible_arguments(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        demo.write_demo(str(tmp_path / "none"), **{**SMALL, **wrong})


def test_writes_to_an_object_store(demo_set: demo.DemoSet) -> None:
    store = fsspec.filesystem("memory")
    result = demo.write_demo("memory://bucket/demo", defects=True, **SMALL)
    expected = digests(demo_set["root"])
    assert {path.removeprefix("/bucket/demo/") for path in store.find("/bucket/demo")} == {*expected, demo.INFO}
    assert result["root"] == "memory://bucket/demo" and result["counts"] == demo_set["counts"]
    name = next(iter(expected))
    assert hashlib.sha256(store.cat_file(f"/bucket/demo/{name}")).hexdigest() == expected[name]
    assert demo.write_demo("memory://bucket/demo", defects=True, **SMALL)["defects"] == demo_set["defects"]
    with pytest.raises(UserError, match="other arguments"):
        demo.write_demo("memory://bucket/demo", **SMALL)


@pytest.mark.parametrize("name", draw.ANIMALS)
def test_the_animal_is_in_the_image(name: str) -> None:
    for number in range(12):
        canvas = np.zeros((225, 300, 4), np.uint8)
        mask = draw._draw_animal(canvas, name, np.random.default_rng([7, number]))
        assert 0.02 < (mask > 127).mean() < 0.9
        assert canvas[mask == 255][:, :3].std() > 5


def test_an_animal_differs_from_image_to_image() -> None:
    """Pose, place, size and colours vary: no two masks or mean colours of a class agree."""
    for name in draw.ANIMALS:
        canvases = [np.zeros((72, 96, 4), np.uint8) for _ in range(6)]
        masks = [
            draw._draw_animal(canvas, name, np.random.default_rng(number)) for number, canvas in enumerate(canvases)
        ]
        colours = [canvas[mask == 255][:, :3].mean(0) for canvas, mask in zip(canvases, masks, strict=True)]
        for k in range(1, 6):
            assert all((masks[k] != mask).mean() > 0.01 for mask in masks[:k])
            assert all(np.abs(colours[k] - colour).max() > 1 for colour in colours[:k])


def test_every_part_has_a_known_group_and_colour() -> None:
    groups = {"body", "head", "tail", "leg", "both", "patches", "wool"}
    colours = {*draw.PALETTE, "coat", "other", "shade", "dim"}
    for animal in draw.ANIMALS.values():
        assert {part.group for part in animal.parts} <= groups and {part.colour for part in animal.parts} <= colours
        assert set(animal.coats) <= set(draw.PALETTE) and animal.foot in colours


def test_large_images_are_possible() -> None:
    image = draw.draw("gatto", 700, 1100, np.random.default_rng(0))
    assert image.shape == (700, 1100, 3) and image.dtype == np.uint8
    assert cv2.Laplacian(image, cv2.CV_64F).std() > 1
