"""The map of the images: near is alike, the same each time, one file, and nothing runs that is not ours."""

import base64
import hashlib
import io
import json
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import LITE, tiny_prepared
from PIL import Image
from run_folders import run_with_model
from test_report import browse, page_of

from animalclf import config as configuration
from animalclf.report import map_features as features_module
from animalclf.report import projection
from animalclf.report.image_map import map_json, thumbnail_numbers
from animalclf.report.map_features import chosen_rows, map_features
from animalclf.report.page import write_report
from animalclf.report.projection import project
from animalclf.report.sections import image_map as section
from animalclf.report.survey import TINY, Survey
from animalclf.training import checkpoint
from animalclf.training.feature_cache import Features, cache_of
from animalclf.utils import storage


def groups(count, classes=6, width=40):
    """Features float32 (count, width) of `classes` groups, and the group of each."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % classes
    features = 4 * generator.normal(size=(classes, width))[labels] + generator.normal(size=(count, width))
    return features.astype(np.float32), labels


def purity(positions, labels):
    """The fraction of the five nearest images that are of the same group."""
    distances = np.linalg.norm(positions[:, None] - positions, axis=2)
    return float((labels[distances.argsort(1)[:, 1:6]] == labels[:, None]).mean())


@pytest.mark.parametrize("most", [200, 60])  # all by the exact method, and 60 of 120
def test_near_images_of_the_map_are_alike(monkeypatch, most):
    monkeypatch.setattr(projection, "MAX_EXACT", most)
    features, labels = groups(120)
    positions = project(features)
    assert purity(positions, labels) > 0.97
    assert positions.shape == (120, 2) and positions.min() == 0 and positions.max() == 1
    np.testing.assert_array_equal(positions, project(features))
    assert (most == 200) == np.array_equal(positions, project(features, seed=1))


@pytest.mark.parametrize("features", [np.ones((9, 4)), np.ones((1, 3)), np.eye(4)[:3], np.repeat(np.eye(4), 9, 0)])
def test_equal_and_few_images_have_places(features):
    positions = project(features.astype(np.float32))
    assert positions.shape == (len(features), 2) and np.isfinite(positions).all()


def predictions(count, classes=10, wrong=40):
    """A table of predictions, the first `wrong` of which are mistakes."""
    labels = np.arange(count) % classes
    predicted = np.where(np.arange(count) < wrong, (labels + 1) % classes, labels)
    names = np.array([f"class {number}" for number in range(classes)])
    paths = [f"{names[label]}/IMG_{number:05d}-long-name-of-a-camera.jpeg" for number, label in enumerate(labels)]
    return pd.DataFrame(
        {"path": paths, "label": names[labels], "predicted": names[predicted], "probability": 0.9}
    ), list(names)


def test_a_map_of_20_000_images_is_below_5_mb():
    count = 20_000
    table, classes = predictions(count, 151, 3000)
    generator = np.random.default_rng(0)
    noise = cv2.GaussianBlur(generator.integers(0, 256, (200 * TINY, TINY, 3), np.uint8), (0, 0), 2)
    noise = np.clip((noise.astype(int) - 128) * 4 + 128, 0, 255).astype(np.uint8).reshape(200, TINY, TINY, 3)
    survey = Survey(np.full(count, 0.5), noise[generator.integers(0, 200, count)])
    text = map_json(table, classes, generator.random((count, 2)), np.ones(count), survey)
    assert len(text.encode()) < 4.6e6  # the other sections of a report take less than 0.4 MB
    data = json.loads(text)
    assert len(data["x"]) == len(data["path"]) == count and len(data["classes"]) == 151
    sheet = Image.open(io.BytesIO(base64.b64decode(data["sprite"].partition(",")[2])))
    tiles = np.array(data["tile"])
    assert (tiles[:3000] >= 0).all() and 5000 < (tiles >= 0).sum() == tiles.max() + 1  # mistakes have one
    assert sheet.size[0] == data["columns"] * data["side"]
    row = int(np.flatnonzero(tiles >= 0)[-1])
    left, top = tiles[row] % data["columns"] * data["side"], tiles[row] // data["columns"] * data["side"]
    shown = np.asarray(sheet.crop((left, top, left + data["side"], top + data["side"])))
    expected = cv2.resize(survey.tiny[row], (data["side"],) * 2, interpolation=cv2.INTER_AREA)
    assert np.abs(shown.astype(int) - expected).mean() < 25 < np.abs(expected[::-1].astype(int) - expected).mean()


def test_few_images_have_large_thumbnails_and_unstored_ones_none():
    tiles, side = thumbnail_numbers(np.zeros(5, bool), np.array([1, 0, 1, 1, 0], bool))
    assert side == TINY and tiles.tolist() == [0, -1, 1, 2, -1]
    table, classes = predictions(20)
    survey = Survey(np.full(20, np.nan), np.zeros((20, TINY, TINY, 3), np.uint8))
    data = json.loads(map_json(table, classes, np.zeros((20, 2)), np.full(20, np.nan), survey))
    assert data["sprite"] == "" and set(data["tile"]) == {-1} and set(data["aspect"]) == {100}


def test_a_part_of_the_images_has_all_mistakes_up_to_half():
    table, _ = predictions(100, wrong=10)
    rows = chosen_rows(table, 30)
    assert len(rows) == 30 and rows[:10].tolist() == list(range(10)) and (np.diff(rows) > 0).all()
    many, _ = predictions(100, wrong=80)
    assert (chosen_rows(many, 30) < 80).sum() >= 15 and (chosen_rows(many, 30) >= 80).any()
    assert chosen_rows(table, 100).tolist() == list(range(100))


def test_the_page_has_the_map_and_runs_our_script_alone(tmp_path):
    prepared = tiny_prepared(tmp_path / "set", size=80)
    run = run_with_model(tmp_path / "run", prepared)
    page = storage.read_bytes(write_report([run], run.root, title="x").report).decode()
    policy = re.search(r'Content-Security-Policy"\s+content="(.*?)">', page).group(1)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.endswith(f"; script-src 'sha256-{digest}'") and "unsafe-eval" not in policy
    data = json.loads(re.search(r'id="image_map_data">(.*?)</script>', page, re.S).group(1))
    rows = prepared.rows("val")
    assert data["path"] == prepared.manifest["path"].iloc[rows].tolist() and data["sprite"]
    assert data["label"] == prepared.labels[rows].tolist()
    assert sum(a != b for a, b in zip(data["label"], data["predicted"], strict=True)) == 4
    assert {f"image_map_{name}" for name in re.findall(r'element\("(\w+)"\)', script)} <= {
        *re.findall(r'id="(\w+)"', page)
    }
    storage.remove(run.checkpoint("best"))
    page = storage.read_bytes(write_report([run], run.root, title="x").report).decode()
    assert "<script" not in page and "script-src" not in page and 'id="image_map"' not in page


def test_the_section_places_each_image_by_its_own_features():
    table, classes = predictions(30)
    features, rows = groups(12)[0], np.arange(3, 15)
    survey = Survey(np.full(30, np.nan), np.zeros((30, TINY, TINY, 3), np.uint8))
    data = SimpleNamespace(
        image_map=(rows, features),
        validated=[(SimpleNamespace(label="", result=None), SimpleNamespace(classes=classes))],
        predictions=[table], sizes=np.ones((30, 2)), survey=survey, finished=[],
    )  # fmt: skip
    content = json.loads(section.image_map(data).values["json"])
    assert content["path"] == table["path"].iloc[rows].tolist()
    positions = np.transpose([content["x"], content["y"]]) / content["levels"]
    np.testing.assert_allclose(positions, project(features), atol=1e-2)


PROBE = """<script>
const errors = [];
window.onerror = (text) => errors.push(text);
addEventListener('load', () => setTimeout(() => {
  const map = (name) => document.getElementById(`image_map_${name}`), canvas = map('canvas'), tip = map('tip');
  const data = JSON.parse(map('data').textContent), box = canvas.getBoundingClientRect();
  const x = 14 + data.x[0] / data.levels * (box.width - 28), y = 14 + data.y[0] / data.levels * (box.height - 28);
  canvas.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + x, clientY: box.top + y}));
  const shown = tip.getBoundingClientRect(), picture = tip.querySelector('canvas');
  const drawn = picture.getContext('2d').getImageData(64, 64, 1, 1).data[3];
  const texts = [...tip.querySelectorAll('p')].map(p => p.textContent), legend = map('legend').children.length;
  const inside = shown.left >= box.left - 1 && shown.right <= box.right + 1;
  const scroll = document.documentElement.scrollWidth;
  parent.postMessage(JSON.stringify({errors, drawn, texts, legend, inside, scroll}), '*');
}, 300));
</script>"""


def test_in_a_browser_the_map_shows_the_image_under_the_pointer(tmp_path):
    prepared = tiny_prepared(tmp_path / "set", size=80)
    run = run_with_model(tmp_path / "run", prepared)
    (tmp_path / "probed.html").write_text(
        page_of(write_report([run], run.root, title="x")).replace("<head>", f"<head>{PROBE}")
    )
    findings = browse(tmp_path, 390)
    assert findings["errors"] == [] and findings["inside"] and findings["scroll"] <= 390
    assert findings["drawn"] == 255 and findings["legend"] == 3
    path = prepared.manifest["path"].iloc[prepared.rows("val")[0]]
    assert findings["texts"] == ["class0", "predicted class1, 98 %", path]


def test_names_end_no_element():
    table, classes = predictions(3)
    name = "</script><script>alert(1)</script><!-- & \u2028"
    text = map_json(
        table.assign(path=name),
        classes,
        np.zeros((3, 2)),
        np.ones(3),
        Survey(np.ones(3), np.zeros((3, 8, 8, 3), np.uint8)),
    )
    assert not set("<>&") & set(text) and json.loads(text)["path"][0] == name


def test_features_that_a_training_stored_are_not_computed_again(tmp_path, monkeypatch):
    prepared = tiny_prepared(tmp_path / "set")
    sets = LITE | {"model.trainable": ["head"], "train.precision": "fp32"}
    still = {"augment.rotation": 0, "augment.shift": 0, "augment.zoom": [1, 1], "augment.flip": False}
    run = run_with_model(tmp_path / "run", prepared, config=configuration.load("big_cnn", sets | still))
    table = run.predictions("val")
    rows, computed = map_features(run, table)
    model, info = checkpoint.load_model(run.root)
    context = SimpleNamespace(
        prepared=prepared, config=info.config, bf16=False, ranks=SimpleNamespace(device=torch.device("cpu"))
    )
    values = np.random.default_rng(0).random((len(prepared.manifest), computed.shape[1])).astype(np.float32)
    cache_of(context, model).write(Features(np.arange(len(values))[::-1].copy(), values[::-1].copy()))
    monkeypatch.setattr(features_module, "Model", None)  # computes
    stored_rows, stored = map_features(run, table)
    assert rows.tolist() == stored_rows.tolist() == list(range(len(table)))
    np.testing.assert_array_equal(stored, values[prepared.rows("val")])
