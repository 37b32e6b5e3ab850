"""Slices: the accuracy on parts of the images, the worst first, with what is by chance alone."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import tiny_prepared
from run_folders import finished_run, guesses

from animalclf.metrics.intervals import wilson
from animalclf.report.page import write_report
from animalclf.report.sections import slices as section
from animalclf.report.slices import MIN_IMAGES, image_table, slices, source_folder
from animalclf.report.survey import TINY, survey
from animalclf.utils import storage


def images(count, seed, accuracy=0.8, **columns):
    generator = np.random.default_rng(seed)
    table = {"correct": generator.random(count) < accuracy, "cluster": np.arange(count), **columns}
    numbers = {name: generator.random(count) for name in ("pixels", "aspect", "brightness")}
    return pd.DataFrame({**numbers, **table})


def test_a_weak_slice_comes_first_and_is_no_chance():
    table = images(400, 0)
    dark = table["brightness"] < table["brightness"].quantile(0.25)
    table.loc[dark, "correct"] &= np.arange(dark.sum()) % 2 == 0  # every other dark image is wrong
    first, *others = slices(table)
    assert (first.title, first.images) == ("brightness", 100) and first.name.startswith("0.00 to 0.2")
    assert (
        first.accuracy == table.loc[dark, "correct"].mean() < 0.5 < first.others == table.loc[~dark, "correct"].mean()
    )
    assert (first.low, first.high) == pytest.approx(wilson(first.accuracy * 100, 100)) and first.p < 1e-6
    assert len(others) == 11 and min(item.p for item in others if item.title != "brightness") > 0.05
    accuracies = [item.accuracy for item in (first, *others)]
    assert accuracies == sorted(accuracies)


def test_the_worst_of_many_slices_of_chance_is_seldom_significant():
    significant = [min(item.p for item in slices(images(400, seed))) < 0.05 for seed in range(60)]
    assert sum(significant) <= 8  # 5 % are expected; uncorrected p values of 12 slices give 30 of 60
    assert sum(slices(images(400, seed))[0].high < 0.8 for seed in range(60)) > 0  # intervals are of one slice each


def test_near_duplicates_are_no_independent_images():
    alone = images(200, 1, folder=np.repeat(["a", "b"], 100))
    five = alone.assign(cluster=np.arange(200) // 5)
    (narrow,), (wide,) = ([item for item in slices(table) if item.name == "a"] for table in (alone, five))
    assert wide.accuracy == narrow.accuracy and wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    assert (wide.low, wide.high) == pytest.approx(wilson(wide.accuracy * 20, 20))
    assert slices(alone.assign(cluster=np.arange(200) // 20)) == []  # five of each folder


def test_small_slices_and_unknown_values_are_left_out():
    sizes = np.repeat(["jpg", "png", "bmp"], [100, MIN_IMAGES - 1, MIN_IMAGES])
    table = images(len(sizes), 2, format=sizes, brightness=np.nan)
    assert {item.name for item in slices(table) if item.title == "file format"} == {"jpg", "bmp"}
    assert "brightness" not in {item.title for item in slices(table)}
    assert slices(images(2 * MIN_IMAGES - 1, 3)) == []
    assert len([item for item in slices(images(60, 3)) if item.title == "brightness"]) == 2


def test_the_folder_of_a_class_is_no_source():
    paths = ["cat/x.jpg", "farm/dog/y.JPEG", "farm/cat/2020/z.tif", "w.png"]  # y is relabelled
    assert [source_folder(path, {"cat", "dog"}) for path in paths] == [".", "farm", "farm/2020", "."]
    table = pd.DataFrame({"path": paths, "label": "cat", "predicted": ["cat", "dog", "cat", "cat"]})
    content = image_table(table.assign(group=[0, 0, 1, 2]), ["cat", "dog"])
    assert content["folder"].tolist() == [".", "farm", "farm/2020", "."]
    assert content["format"].tolist() == ["jpg", "jpg", "tif", "png"] and content["cluster"].tolist() == [0, 0, 1, 2]
    assert content["correct"].tolist() == [True, False, True, True]
    paths = ["a.b/no_suffix", "a.b/x.TIFF", "x", "y.", "z.a-b", "é.jpg"]
    formats = image_table(pd.DataFrame({"path": paths, "label": "cat", "predicted": "cat"}), ["cat"])["format"]
    assert formats.fillna("").tolist() == ["", "tif", "", "", "", "jpg"]


def test_the_survey_measures_the_stored_images(tmp_path):
    prepared = tiny_prepared(tmp_path / "set")
    paths = prepared.manifest["path"].iloc[[3, 0, 50]].tolist()
    result = survey(prepared, [*paths, "unknown.jpg"])
    assert result.tiny.shape == (4, TINY, TINY, 3) and result.has_images
    assert np.isnan(result.brightness[3]) and (abs(result.brightness[:3] - 0.27) < 0.03).all()
    assert not survey(None, paths).has_images
    some = survey(prepared, [*paths, "unknown.jpg"], np.array([0, 2]))  # of a large set only these have a thumbnail
    assert some.tiny.shape == (2, TINY, TINY, 3)
    np.testing.assert_array_equal(some.brightness, result.brightness)
    part = some.part(np.array([2, 0]))
    np.testing.assert_array_equal(part.tiny, result.tiny[[2, 0]])
    np.testing.assert_array_equal(part.brightness, result.brightness[[2, 0]])


def test_the_section_divides_by_the_sizes_and_brightness_of_its_images(monkeypatch):
    table, taken = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "label": "cat", "predicted": "cat"}), []
    monkeypatch.setattr(section, "worst_first", lambda images: taken.append(images) or [])
    section.slices(SimpleNamespace(
        validated=[(SimpleNamespace(label=""), SimpleNamespace(classes=["cat", "dog"]))], predictions=[table],
        finished=[], sizes=np.array([[40.0, 20], [30, 60]]), survey=SimpleNamespace(brightness=np.array([0.1, 0.9])),
    ))  # fmt: skip
    assert taken[0][["pixels", "aspect", "brightness"]].to_numpy().tolist() == [[800, 2, 0.1], [1800, 0.5, 0.9]]


def test_the_section_names_the_slices_and_their_number(tmp_path):
    labels = np.arange(200) % 3
    paths = [f"{'<b>in</b>' if number < 100 else 'out'}/{number}.jpg" for number in range(200)]
    probabilities = guesses(labels, 0.9, np.random.default_rng(0))
    probabilities[:100] = guesses(labels[:100], 0.3, np.random.default_rng(1))
    run = finished_run(tmp_path / "run", probabilities, labels, paths=paths)
    run.write_environment()
    page = storage.read_bytes(write_report([run], run.root, title="x").report).decode()
    section = re.search(r'id="slices">(.*?)</section>', page, re.S).group(1)
    assert re.findall(r"<td>folder: (.*?)</td>", section) == ["&lt;b&gt;in&lt;/b&gt;", "out"]
    assert "Of 2 slices the lowest would be low by chance alone" in section
