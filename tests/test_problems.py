"""Problems of the data: every command that uses images reports the same ones, and ends with the same exit code."""

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from animalclf import config as configuration
from animalclf.cli import main
from animalclf.data.loader import load_images
from animalclf.data.prepared_set import open_prepared
from animalclf.errors import ExitCode, UserError, exit_code
from animalclf.models import build
from animalclf.prepare import job
from animalclf.prepare.job import prepare
from animalclf.prepare.problems import find_problems, show_problems
from animalclf.rows import DataProblems
from animalclf.runs import Run
from animalclf.training import checks, launch
from animalclf.training.resources import Workers
from tests.helpers import tiny_prepared

TINY = ["--recipe", "resnet18", "--set", "model.input_size=32", "--set", "data.stored_size=36"]
TINY += ["--set", "model.weights=none", "--set", "train.epochs=1", "--set", "optim.warmup_epochs=0"]
TINY += ["--set", "data.max_unreadable=0.2", "--set", "data.near_duplicates=false"]
LINES = (
    "unreadable files, skipped: 3",
    "cat/new.heic: HEIC image, which is not supported; convert it to JPEG or PNG",
    "cat/torn.jpg: ",
    "dog/empty.jpg: ",
    "skipped: 2 files that are not images (.mp4: 1, .txt: 1), such as cat/clip.mp4",
    "duplicates with different labels: 1 group",
    "cat/same.jpg (cat) = dog/same.jpg (dog)",
    "images of a single colour: 1",
    "dog/grey.png",
    "class names that differ in case only: 1",
    "'Cat', 'cat'",
)


def jpeg(seed: int) -> bytes:
    pixels, file = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8), io.BytesIO()
    Image.fromarray(pixels).resize((80, 60), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("problems") / "photos"
    for number, name in enumerate(("Cat", "cat", "dog")):
        (root / name).mkdir(parents=True)
        for image in range(8):
            (root / name / f"{image}.jpg").write_bytes(jpeg(100 * number + image))
    for name in ("cat", "dog"):
        (root / name / "same.jpg").write_bytes(jpeg(1000))
    (root / "cat" / "torn.jpg").write_bytes(jpeg(1001)[:700])
    (root / "dog" / "empty.jpg").write_bytes(b"")
    Image.new("RGB", (50, 40), (90, 90, 90)).save(root / "dog" / "grey.png")
    (root / "cat" / "notes.txt").write_text("no image")
    (root / "cat" / "new.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(90))
    (root / "cat" / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(90))
    return root


def check(output: str) -> None:
    text = output.replace("\n", " ")
    missing = [line for line in LINES if line not in text]
    assert not missing


@pytest.mark.ray
def test_every_command_reports_the_same_problems(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ray_local: None
) -> None:
    common = ["--data", str(photos), "--json"]
    commands = {
        "prepare": ["prepare", *common, "--out", str(tmp_path / "prepared"), *TINY],
        "train": ["train", *common, "--out", str(tmp_path / "runs" / "a"), *TINY, "--local"],
        "compare": ["compare", *common, "--out", str(tmp_path / "runs" / "c"), "--recipes", "resnet18", *TINY[2:]],
    }
    problems = {}
    for name, command in commands.items():
        assert main(command) == 3, name
        output = capsys.readouterr()
        check(output.err)
        assert output.err.count("differ in case only") == 1
        problems[name] = DataProblems.from_dict(json.loads(output.out.splitlines()[-1])["problems"])
    assert problems["train"] == problems["prepare"] == problems["compare"]
    train_problems = problems["train"]
    assert [image.path for image in train_problems.unreadable] == ["cat/new.heic", "cat/torn.jpg", "dog/empty.jpg"]
    assert train_problems.contradictory == [{"cat/same.jpg": "cat", "dog/same.jpg": "dog"}]
    assert train_problems.single_colour == ["dog/grey.png"] and train_problems.similar_classes == [["Cat", "cat"]]
    assert train_problems.skipped == {".mp4": 1, ".txt": 1}
    assert "problems" not in json.loads((tmp_path / "runs" / "a" / "result.json").read_text())


@pytest.mark.ray
def test_the_plan_line_and_a_prepared_set_of_the_same_images(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ray_local: None
) -> None:
    sets = ["model.input_size=32", "data.stored_size=200", "model.weights=none", "train.epochs=1"]
    settings = {"data.max_unreadable": 0.2, "data.near_duplicates": False}
    config = configuration.load("resnet18", configuration.parse_sets(sets) | settings)
    prepared = prepare(str(photos), str(tmp_path / "set"), config.data)
    assert "stored at 200 px" in (output := capsys.readouterr().err)
    assert "most images are smaller and are scaled up (median 80 x 60 px)" in output
    other = configuration.load("resnet18", {"model.input_size": 32, "data.stored_size": 36, "data.limit": 12})
    reused, config = checks.open_or_prepare(str(photos), other, prepared.root)
    assert reused.root == prepared.root and config.data.stored_size == 200 and len(list(tmp_path.iterdir())) == 1
    run = Run(str(tmp_path / "run"))
    plan = launch._plan(config, reused, run, launch.Placement(Workers.fixed(1), True, "here"))
    assert "9 training and 3 validation images" in plan
    (tmp_path / "elsewhere").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "elsewhere" / name).symlink_to(photos / name)
    with pytest.raises(UserError, match=r"is a prepared set of other images than .*image folder: .* -> "):
        checks.open_or_prepare(str(tmp_path / "elsewhere"), other, prepared.root)


def test_images_without_problems_print_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared = tiny_prepared(tmp_path / "prepared")
    assert not show_problems(prepared)
    assert capsys.readouterr().err == ""


def test_a_set_of_an_older_version_has_examples_of_skipped_files_only(tmp_path: Path) -> None:
    prepared = tiny_prepared(tmp_path / "prepared")
    prepared.info["ignored"] = {"files": 5, "examples": ["a/1.txt", "a/2.TXT", "a/README"]}
    assert find_problems(prepared).skipped == {".txt": 2, "without extension": 1, "others": 2}


def test_a_failed_trial_wins_over_an_unreadable_image() -> None:
    assert exit_code() == 0 and exit_code(unreadable=True) == 3 and exit_code(failed=True, unreadable=True) == 1
    assert ExitCode.USER_ERROR == 2


def test_a_missing_shard_is_named(tmp_path):
    prepared = tiny_prepared(tmp_path / "set", (6, 6))
    Path(prepared.shard_paths()[0]).unlink()
    with pytest.raises(UserError, match=r"set/shard-00000\.parquet: is missing; prepare it again with"):
        load_images(prepared)


def test_a_label_that_is_no_class_is_named(tmp_path):
    prepared = tiny_prepared(tmp_path / "set", (6, 6))
    manifest = prepared.manifest.assign(label=["wolf", *prepared.manifest["label"][1:]])
    manifest.to_parquet(tmp_path / "set" / "manifest.parquet")
    with pytest.raises(UserError, match=r"manifest\.parquet: has the label 'wolf', which is no class in dataset\.json"):
        open_prepared(prepared.root)


@pytest.mark.parametrize("recipe", ["quick", "big_cnn", "vgg16_pooled", "features:resnet18"])
def test_the_setting_suggested_for_tiny_images_works(recipe: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(3):
        Image.new("RGB", (32, 40), (number, 90, 90)).save(tmp_path / "a" / f"{number}.png")
    paths = [f"a/{number}.png" for number in range(3)]
    files = pd.DataFrame({"path": paths, "bytes": [os.path.getsize(tmp_path / path) for path in paths]})
    remark = job._enlargement(files, str(tmp_path), configuration.load(recipe).data)
    assert "(median 32 x 40 px); --set data.stored_size=96 --set model.input_size=96 needs" in remark
    sets = configuration.parse_sets(re.findall(r"--set (\S+)", remark))
    config = configuration.load(recipe, sets | {"model.weights": "none"})
    assert job._enlargement(files, str(tmp_path), config.data).endswith("(median 32 x 40 px)")
    model = build(config.model, 3, keep_shape=config.keeps_shape).eval()
    assert model(torch.zeros(2, 96, 96, 3, dtype=torch.uint8)).shape == (2, 3)
