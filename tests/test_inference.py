import dataclasses
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
import ray.data
import torch
from helpers import held_by_another_process, tiny_prepared
from PIL import Image
from rich.console import Console, Group
from run_folders import CONFIG, PRIOR, TINY_CLASSES, untrained_run_folder

from animalclf import config as configuration
from animalclf.errors import UserError
from animalclf.inference import classify, reading
from animalclf.inference import prior_shift as priors
from animalclf.inference.evaluate import confused_pairs, evaluate, table
from animalclf.inference.labelled import predict_prepared
from animalclf.metrics import from_probabilities
from animalclf.rows import Unreadable
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.utils import stall
from animalclf.utils.progress import ProgressLine


def encoded_image(seed, size=(90, 70)):
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 255, (6, 6, 3), np.uint8))
    sink = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(sink, "JPEG", quality=90)
    return sink.getvalue()


def directly(run, contents):
    """Probabilities of encoded images, without Ray and batches."""
    from animalclf.data.augment import evaluation_view
    from animalclf.data.decode import decode
    from animalclf.data.resize import resize

    model, _ = checkpoint.load_model(run)
    images = evaluation_view(np.stack([resize(decode(content).image, 80) for content in contents]), 76)
    with torch.no_grad():
        return model(torch.from_numpy(images)).softmax(1).numpy()


# ---------------------------------------------------------------------------- prior


def test_adjust_by_hand():
    adjusted = priors.adjust(np.array([[0.6, 0.4], [0.0, 1.0]]), np.array([0.75, 0.25]), np.array([0.5, 0.5]))
    assert adjusted[0] == pytest.approx(
        [0.6 / 0.75 / (0.6 / 0.75 + 0.4 / 0.25), 0.4 / 0.25 / (0.6 / 0.75 + 0.4 / 0.25)]
    )
    assert adjusted[1] == pytest.approx([0, 1]) and adjusted.dtype == np.float32
    same = priors.adjust(adjusted, np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    assert same == pytest.approx(adjusted)


def test_a_class_that_cannot_occur_is_never_predicted():
    adjusted = priors.adjust(np.array([[1.0, 0.0, 0.0]]), np.full(3, 1 / 3), np.array([0, 0.75, 0.25]))
    assert adjusted[0] == pytest.approx([0, 0.75, 0.25])


def test_priors_as_people_write_them(tmp_path):
    assert priors.parse_prior("train", TINY_CLASSES) == "train"
    assert priors.parse_prior("uniform", TINY_CLASSES) == pytest.approx([1 / 3] * 3)
    assert priors.parse_prior("class1=0.33, class0=0.33,class2=0.33", TINY_CLASSES) == pytest.approx([1 / 3] * 3)
    (tmp_path / "prior.yaml").write_text("no: 0.25\n1: 0.75\n")
    assert priors.parse_prior(str(tmp_path / "prior.yaml"), ["1", "no"]) == pytest.approx([0.75, 0.25])
    (tmp_path / "prior.json").write_text('{"a": 0, "b": 1}')
    assert priors.parse_prior(str(tmp_path / "prior.json"), ["a", "b"]) == pytest.approx([0, 1])


@pytest.mark.parametrize(
    "text, message",
    [
        ("class0=0.5,clas1=0.5,class2=0", r"no class 'clas1' \(did you mean 'class1'\?\)"),
        ("class0=0.5,class1=0.5", "no prior for class2"),
        ("class0=0.5,class1=0.5,class2=0.5", "sum to 1.5"),
        ("class0=0.5,class1=-0.5,class2=1", "class1: '-0.5' is not a number"),
        ("class0=0.5,class1=nan,class2=0.5", "class1: 'nan' is not a number"),
        ("class0=0.5,class0=0.5,class2=0", "class0 is named twice"),
        ("equal", "write train, uniform"),
        ("nowhere.yaml", "no such file"),
    ],
)
def test_wrong_priors_are_named(text, message):
    with pytest.raises(UserError, match=message):
        priors.parse_prior(text, TINY_CLASSES)


def test_a_class_without_training_images_cannot_be_corrected_for():
    with pytest.raises(UserError, match="no training images of class2"):
        priors.parse_prior("uniform", TINY_CLASSES, [0.5, 0.5, 0.0])
    assert priors.parse_prior("class0=0.2,class1=0.8,class2=0", TINY_CLASSES, [0.5, 0.5, 0.0]) == pytest.approx(
        [0.2, 0.8, 0]
    )


def test_class_priors_are_estimated_from_the_probabilities():
    generator = np.random.default_rng(0)
    labels = generator.choice(3, 4000, p=[0.1, 0.2, 0.7])
    # Class c adds 2 to measurement c, so that log p(x|c) = 2 x_c + const.
    logits = generator.normal(size=(4000, 3)) + 2 * np.eye(3)[labels]
    trained = np.array([0.6, 0.3, 0.1])
    probabilities = np.exp(2 * logits) * trained
    probabilities /= probabilities.sum(1, keepdims=True)
    assert priors.estimate(probabilities, trained) == pytest.approx([0.1, 0.2, 0.7], abs=0.03)
    corrected, _ = priors.apply(probabilities, trained, "estimate")
    assert (corrected.argmax(1) == labels).mean() > (probabilities.argmax(1) == labels).mean() + 0.05
    assert priors.estimate(probabilities[:0], trained) == pytest.approx(trained)


# ---------------------------------------------------------------------------- evaluate


def test_the_runs_own_validation_split(untrained_run, tiny_set):
    result = evaluate(untrained_run)
    rows = tiny_set.rows("val")
    from animalclf.data.augment import evaluation_view
    from animalclf.data.loader import load_images

    model, _ = checkpoint.load_model(untrained_run)
    with torch.no_grad():
        probabilities = (
            model(torch.from_numpy(evaluation_view(load_images(tiny_set).views(rows), 76))).softmax(1).numpy()
        )
    expected = from_probabilities(probabilities, tiny_set.labels[rows], TINY_CLASSES)
    assert result.rows == len(rows) == 6 and result.split == "val" and result.confusion == expected.confusion
    assert result["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    predictions = pd.read_parquet(result.predictions)
    assert (
        predictions["path"].tolist() == tiny_set.manifest["path"].iloc[rows].tolist()
        and predictions["label"].tolist() == tiny_set.manifest["label"].iloc[rows].tolist()
    )
    assert predictions[[f"p_{name}" for name in TINY_CLASSES]].to_numpy() == pytest.approx(probabilities, abs=1e-4)
    with open(result.predictions.replace(".parquet", ".json")) as file:
        assert json.load(file) == result.to_dict()


def test_the_prior_changes_the_probabilities_and_keeps_the_other_evaluation(untrained_run, tmp_path):
    plain, uniform = evaluate(untrained_run), evaluate(untrained_run, prior="uniform")
    assert plain.predictions != uniform.predictions and uniform.class_priors == pytest.approx(
        dict.fromkeys(TINY_CLASSES, 1 / 3)
    )
    before, after = (
        pd.read_parquet(result.predictions)[[f"p_{name}" for name in TINY_CLASSES]].to_numpy()
        for result in (plain, uniform)
    )
    assert after == pytest.approx(priors.adjust(before, np.array(PRIOR), np.full(3, 1 / 3)), abs=1e-6)
    elsewhere = evaluate(untrained_run, split="train", out=str(tmp_path / "out"))
    assert elsewhere.predictions == str(tmp_path / "out" / "evaluate-train.parquet") and elsewhere.rows == 18


def test_other_class_lists_are_refused(untrained_run, tmp_path):
    other = tiny_prepared(tmp_path / "two", (6, 6), size=80)
    with pytest.raises(UserError, match="other classes than the model's: known to the model only: class2"):
        evaluate(untrained_run, data=other.root)
    more = tiny_prepared(tmp_path / "four", (4, 4, 4, 4), size=80)
    with pytest.raises(UserError, match="unknown to the model: class3"):
        evaluate(untrained_run, data=more.root)


def test_a_prepared_set_that_does_not_fit_is_refused(untrained_run, tmp_path):
    with pytest.raises(UserError, match=r"no images in split 'test'; splits with images: train \(18\), val \(6\)"):
        evaluate(untrained_run, split="test")
    with pytest.raises(UserError, match="stored at 40 px, the model reads 76 px"):
        evaluate(untrained_run, data=tiny_prepared(tmp_path / "small", (4, 4, 4), size=40).root)
    changed = tiny_prepared(tmp_path / "changed", (4, 4, 4), size=80, seed=1)
    with pytest.raises(UserError, match="changed since the training"):
        evaluate(untrained_run_folder(tmp_path / "run", prepared=changed.root, data_fingerprint="tiny-0"))
    with pytest.raises(UserError, match="names no prepared set"):
        evaluate(untrained_run_folder(tmp_path / "bare"))
    with pytest.raises(UserError, match="no run in this folder"):
        evaluate(str(tmp_path / "nothing"))


@pytest.mark.parametrize("place", ["runs/prepared/tiny", "tiny"])
@pytest.mark.parametrize("run_folder", ["runs/a", "runs/c/trials/a"])
def test_the_prepared_set_is_found_beside_a_moved_run(tmp_path, place, run_folder):
    prepared = tiny_prepared(tmp_path / "old" / place, (12, 8, 4), size=80)
    folder = tmp_path / "old" / run_folder
    folder.mkdir(parents=True)
    untrained_run_folder(folder, prepared=prepared.root, data_fingerprint=prepared.fingerprint)
    (tmp_path / "old").rename(tmp_path / "new")
    new_run = str(tmp_path / "new" / run_folder)
    assert evaluate(new_run).data == str(tmp_path / "new" / place)
    tiny_prepared(tmp_path / "new" / place, (4, 4, 4), size=80, seed=1)
    with pytest.raises(UserError, match=rf"{prepared.root}: not a prepared set"):
        evaluate(new_run)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path, tiny_set):
    from animalclf.inference.predict import predict

    other = configuration.load("big_cnn", {"model.input_size": 120, "data.stored_size": 120})
    broken = untrained_run_folder(
        tmp_path / "run", saved=other, prepared=tiny_set.root, data_fingerprint=tiny_set.fingerprint
    )
    with pytest.raises(UserError, match="does not fit this architecture"):
        evaluate(broken)
    with pytest.raises(UserError, match="does not fit this architecture"):
        predict(broken, str(tmp_path), str(tmp_path / "out"))


def test_the_tables_fit_a_terminal_of_80_columns(untrained_run):
    result = dataclasses.replace(
        evaluate(untrained_run), unreadable=[Unreadable(path="a/[b].jpg", reason="empty file")], notes=["something"]
    )
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(Group(*table(result)))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    for expected in (
        "balanced accuracy",
        "class2",
        "a/[b].jpg: empty file",
        "note: something",
        f"{result['accuracy']:.4f}",
    ):
        assert expected in text
    assert "…" not in text


@pytest.mark.parametrize("precision, differs", [("bf16", True), ("fp32", False)])
def test_an_evaluation_names_the_other_precision_of_the_training(
    untrained_run, tmp_path, precision, differs, monkeypatch
):
    def predict_val(model, classes, config, prepared, split, views):  # the set has no test images
        return predict_prepared(model, classes, config, prepared, "val", views)

    monkeypatch.setattr("animalclf.inference.evaluate.predict_prepared", predict_val)
    run = Run(str(shutil.copytree(untrained_run, tmp_path / "run")))
    run.write_result({"run": run.root, "precision": precision, "best_epoch": 3})
    for split, measured in {"val": True, "test": True, "train": False}.items():  # by the training
        notes = evaluate(run.root, split=split).notes
        assert any("computed in fp32" in note for note in notes) == (differs and measured)


def test_progress_and_a_short_title(untrained_run, tiny_set, monkeypatch):
    updates = []
    monkeypatch.setattr(ProgressLine, "update", lambda line, *update: updates.append(update))
    result = evaluate(untrained_run, split="train")
    count = len(tiny_set.rows("train"))
    assert updates[0] == ("evaluating", 0, count) and updates[-1] == ("evaluating", count, count)
    assert str(table(result)[0].title) == f"{count} images of made by a test, train"


def test_the_most_confused_pairs():
    pairs = confused_pairs([[8, 2, 0], [5, 3, 2], [0, 0, 4]], TINY_CLASSES)
    assert pairs == [("class1", "class0", 5, 0.5), ("class0", "class1", 2, 0.2), ("class1", "class2", 2, 0.2)]


# ---------------------------------------------------------------------------- predict


@pytest.fixture()
def image_folder(tmp_path):
    """A folder of nine files in two folders, one of them unreadable, and their contents by path."""
    contents = {
        f"{'deep/er/' if number % 2 else ''}{number}.jpeg": encoded_image(number, (80 + number, 60))
        for number in (0, 1, 2, 3, 7, 9, 10, 11)
    }
    contents["bad.jpeg"] = b"this is no image"
    for path, content in contents.items():
        file = tmp_path / "images" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return str(tmp_path / "images"), contents


@pytest.mark.ray
def test_prediction_end_to_end(untrained_run, image_folder, tmp_path, ray_local):
    from animalclf.inference.predict import predict

    folder, contents = image_folder
    names = [path.rsplit("/")[-1] for path in contents]
    (tmp_path / "sample.csv").write_text("Id,Class\n" + "".join(f"{name},class0\n" for name in names))
    prior = {"class0": 0.1, "class1": 0.6, "class2": 0.3}
    prior_text = ",".join(f"{name}={value}" for name, value in prior.items())
    result = predict(
        untrained_run,
        folder,
        str(tmp_path / "out"),
        prior=prior_text,
        batch_size=4,
        sample_submission=str(tmp_path / "sample.csv"),
        progress=False,
    )
    rows = pd.read_parquet(result.predictions).set_index("path")
    assert sorted(rows.index) == sorted(contents) and result.images == 9 and rows["id"].is_unique

    good = [path for path in contents if path != "bad.jpeg"]
    expected = priors.adjust(
        directly(untrained_run, [contents[path] for path in good]), np.array(PRIOR), np.array(list(prior.values()))
    )
    assert rows.loc[good, [f"p_{name}" for name in TINY_CLASSES]].to_numpy() == pytest.approx(expected, abs=1e-4)
    assert (
        rows.loc[good, "predicted"].tolist() == [TINY_CLASSES[best] for best in expected.argmax(1)]
        and (rows.loc[good, "status"] == "ok").all()
    )
    assert len(set(rows.loc[good, "p_class0"])) > 4  # the predictions differ

    bad = rows.loc["bad.jpeg"]
    assert bad["predicted"] == "class1" and bad["status"] != "ok" and bad["p_class1"] == pytest.approx(0.6)
    assert result.unreadable == [Unreadable(path="bad.jpeg", reason=bad["status"])]
    lines = Path(result.submission).read_text().splitlines()
    assert lines[0] == "Id,Class" and [line.split(",")[0] for line in lines[1:]] == [
        f"{n}.jpeg" for n in (0, 1, 2, 3, 7, 9, 10, 11)
    ] + ["bad.jpeg"]
    assert dict(line.split(",") for line in lines[1:]) == dict(zip(rows["id"], rows["predicted"], strict=True))
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.ray
def test_two_threads_predict_one_after_the_other(untrained_run, image_folder, tmp_path, ray_local, monkeypatch, capsys):
    from animalclf.inference.predict import predict

    collect, running, most = classify._collect, [], []

    def counted(*arguments):
        running.append(1)
        most.append(len(running))
        results = collect(*arguments)
        running.pop()
        return results

    monkeypatch.setattr(classify, "_collect", counted)
    with ThreadPoolExecutor(2) as pool:
        outs = [str(tmp_path / name) for name in "ab"]
        results = pool.map(lambda out: predict(untrained_run, image_folder[0], out, progress=False), outs)
    assert [result.images for result in results] == [9, 9] and most == [1, 1]
    assert capsys.readouterr().err.count("waiting for another prediction of this process") == 1


@pytest.mark.ray
def test_a_prediction_says_that_it_waits_for_the_cpus_of_others(
    untrained_run, image_folder, tmp_path, ray_local, monkeypatch
):
    from animalclf.inference.predict import predict

    class Other:
        def ready(self):
            return True

    other = ray.remote(num_cpus=4)(Other).remote()
    ray.get(other.ready.remote())
    lines = []

    def show_line(line):
        lines.append(line)
        ray.kill(other)

    monkeypatch.setattr(stall, "show_line", show_line)
    monkeypatch.setattr(stall, "SECONDS", 1.0)
    assert predict(untrained_run, image_folder[0], str(tmp_path / "out")).images == 9
    assert lines[0].startswith("no progress for 1 s (the cluster has 1 node, 4 CPUs, 0 CPUs free: if other programs")


@pytest.mark.ray
def test_files_and_the_prepared_set_give_the_same_predictions(untrained_run, tiny_set, tmp_path, ray_local):
    from animalclf.data.loader import load_images

    rows = tiny_set.rows("val")
    for row, image in zip(rows, load_images(tiny_set).views(rows), strict=True):
        file = tmp_path / "photos" / tiny_set.manifest["path"][row].replace(".jpg", ".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    (tmp_path / "photos" / "class0" / "broken.png").write_bytes(b"")
    stored, files = evaluate(untrained_run), evaluate(untrained_run, data=str(tmp_path / "photos"))
    assert files.rows == stored.rows == 6 and files.images == 7 and files.unreadable[0].path == "class0/broken.png"
    assert files.confusion == stored.confusion and files["loss"] == pytest.approx(stored["loss"], rel=1e-4)
    assert files.predictions.endswith("evaluate-data-photos.parquet") and not files.notes

    (tmp_path / "photos" / "class2").rename(tmp_path / "elsewhere")
    fewer = evaluate(untrained_run, data=str(tmp_path / "photos"))
    assert "no images of class2" in fewer.notes[0] and fewer.per_class.recall[2] is None
    (tmp_path / "elsewhere").rename(tmp_path / "photos" / "wolf")
    with pytest.raises(UserError, match="unknown to the model: wolf; known to the model only: class2"):
        evaluate(untrained_run, data=str(tmp_path / "photos"))


@pytest.mark.ray
def test_one_class_or_an_empty_class_folder_is_scored(untrained_run, tmp_path, ray_local):
    for number in range(5):
        for folder in (tmp_path / "one" / "class1", tmp_path / "two" / "class0", tmp_path / "two" / "class2"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.jpg").write_bytes(encoded_image(number))
    (tmp_path / "two" / "class1").mkdir()
    (tmp_path / "one.csv").write_text("path,label\none/class1/0.jpg,class1\none/class1/1.jpg,class1\n")
    single, two = (
        evaluate(untrained_run, data=str(tmp_path / "one")),
        evaluate(untrained_run, data=str(tmp_path / "two")),
    )
    assert (
        single.rows == 5 and single.per_class.support == [0, 5, 0] and single["balanced_accuracy"] == single["accuracy"]
    )
    assert "no images of class0, class2" in single.notes[0] and all(map(np.isfinite, single.metrics.values()))
    assert two.rows == 10 and two.per_class.support == [5, 0, 5] and "no images of class1" in two.notes[0]
    assert evaluate(untrained_run, data=str(tmp_path / "one.csv")).rows == 2
    json.dumps(single.to_dict(), allow_nan=False)
    (tmp_path / "one" / "class1").rename(tmp_path / "one" / "wolf")
    with pytest.raises(UserError, match="only one class, 'wolf'"):
        evaluate(untrained_run, data=str(tmp_path / "one"))


@pytest.mark.ray
def test_one_file_and_equal_names_in_folders_are_predicted(untrained_run, tmp_path, ray_local):
    from animalclf.inference.predict import predict

    paths = ["a/0.jpg", "a/1.jpg", "b/0.jpg"]
    for number, path in enumerate(paths):
        (tmp_path / "cameras" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cameras" / path).write_bytes(encoded_image(number))
    several = predict(untrained_run, str(tmp_path / "cameras"), str(tmp_path / "out"), progress=False)
    table, lines = pd.read_parquet(several.predictions), Path(several.submission).read_text().splitlines()
    assert table["id"].tolist() == table["path"].tolist() == paths
    assert [line.split(",")[0] for line in lines[1:]] == paths
    single = predict(
        untrained_run,
        str(tmp_path / "cameras" / "b" / "0.jpg"),
        str(tmp_path / "single"),
        batch_size=10**9,
        progress=False,
    )
    row = pd.read_parquet(single.predictions).iloc[0]
    assert single.images == 1 and row["id"] == row["path"] == "0.jpg"
    columns = [f"p_{name}" for name in TINY_CLASSES]
    assert row[columns].tolist() == pytest.approx(table.loc[2, columns].tolist(), abs=1e-5)


@pytest.mark.ray
def test_a_replica_on_a_gpu_takes_batches_of_any_size(ray_local):
    """Ray Data refuses a stage with GPUs and whole blocks as soon as it is defined; this cluster has no GPU to run
    it."""
    config = configuration.load("demo")
    job = classify._Job(ray.put(None), ray.put(["a.jpg"]), "", config, 1, True, classify.Options())
    assert isinstance(classify._dataset(job, [[0]]), ray.data.Dataset)


@pytest.mark.parametrize(("count", "processes", "largest"), [(1, 3, 6), (157, 3, 6), (15_625, 72, 9), (15_625, 3, 500)])
def test_groups_of_batches_are_small_at_both_ends(count, processes, largest):
    groups = classify.grouped(range(count), processes, largest)
    sizes = [len(group) for group in groups]
    assert [number for group in groups for number in group] == list(range(count))
    assert set(sizes[:processes]) == set(sizes[-processes:]) == {1} and max(sizes) <= largest
    assert count < 100 or len(groups) < count / 3


@pytest.mark.ray
@pytest.mark.parametrize("survivable", [True, False])
def test_a_replica_of_the_model_that_dies(untrained_run, image_folder, tmp_path, ray_local, monkeypatch, survivable):
    from animalclf.inference import classify

    mark, original = tmp_path / "died", classify._Replica

    class Dying(original):  # defined here, so that Ray sends its code along
        def __call__(self, block):
            if not survivable or (block["index"][0] == 6 and not mark.exists()):
                mark.touch()
                os._exit(1)
            return original.__call__(self, block)

    monkeypatch.setattr(classify, "_Replica", Dying)
    monkeypatch.setattr(
        classify, "grouped", lambda batches, *_: [group for group in (batches[:2], batches[2:]) if group]
    )
    model, _ = checkpoint.load_model(untrained_run)
    settings = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, max_failures=1))
    paths = [path for path in image_folder[1] if path != "bad.jpeg"]
    if survivable:
        probabilities, status, _ = classify.classify(
            model, settings, image_folder[0], paths, classify.Options(batch_size=3, progress=False)
        )
        assert mark.exists() and status == ["ok"] * 8
        assert probabilities == pytest.approx(
            directly(untrained_run, [image_folder[1][path] for path in paths]), abs=1e-4
        )
    else:
        with pytest.raises(UserError, match="died 2 times"):
            classify.classify(model, settings, image_folder[0], paths, classify.Options(batch_size=3, progress=False))


def test_a_missing_file_is_a_row_and_a_refused_store_stops_the_prediction(image_folder, monkeypatch):
    folder, contents = image_folder
    block = reading.read_images(folder, [*contents, "gone.jpeg"], 5 + np.arange(len(contents) + 1), CONFIG)
    assert (
        block["status"].tolist()[-1] == "file not found"
        and block["status"].tolist().count("ok") == 8
        and set(block["failed"]) == {""}
    )
    assert block["index"].tolist() == list(range(5, 15)) and block["image"].shape == (10, 76, 76, 3)

    def refused(root, paths):
        raise UserError(f"{root}: access denied")

    monkeypatch.setattr(reading, "read_files", refused)
    assert "access denied" in reading.read_images(folder, list(contents), np.arange(len(contents)), CONFIG)["failed"][0]


@pytest.mark.ray
def test_more_workers_than_the_cluster_has_are_refused(untrained_run, image_folder, tmp_path, ray_local):
    from animalclf.inference.predict import predict

    with pytest.raises(UserError, match="the cluster has 4 CPUs"):
        predict(untrained_run, image_folder[0], str(tmp_path / "out"), workers=9, batch_size=1, progress=False)


def test_what_cannot_become_a_submission_stops_before_the_work(untrained_run, image_folder, tmp_path):
    from animalclf.inference.predict import predict

    folder, _ = image_folder
    (tmp_path / "sample.csv").write_text("id,category\n0.jpeg,class0\n55.jpeg,class0\n")
    with pytest.raises(UserError, match=r"1 of its ids without an image \(55\.jpeg\); 8 images are not in it"):
        predict(untrained_run, folder, str(tmp_path / "out"), sample_submission=str(tmp_path / "sample.csv"))
    with pytest.raises(UserError, match="no class 'wolf'"):
        predict(untrained_run, folder, str(tmp_path / "out"), prior="wolf=1")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        predict(untrained_run, folder, str(tmp_path / "file" / "out"))
    with held_by_another_process(tmp_path / "out") as other:
        with pytest.raises(UserError, match=f"in use by process {other.pid}"):
            predict(untrained_run, folder, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_tasks_that_read_images_do_not_import_pytorch():
    """Its import takes two seconds in each of their processes, at the start of every prediction."""
    code = "import sys, animalclf.inference.reading; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_replica_does_not_import_scipy():
    """It takes 0.1 s, and the score of `known` needs none of it."""
    code = "import sys, animalclf.inference.classify, animalclf.features.known; sys.exit('scipy.linalg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_packed_texts_are_the_texts():
    texts = ["a.jpg", "", "Küche/ß 猫.png", "name-\udcff.jpg", "b" * 300]
    packed = reading.PackedTexts.pack(texts)
    for index in ([], [0], [3, 1], list(range(len(texts)))):
        assert packed.take(np.array(index, np.int64)) == [texts[number] for number in index]
    assert reading.PackedTexts.pack([]).take(np.arange(0)) == []


def test_tasks_do_not_read_the_paths_of_all_images():
    """Ray passes what pickle gives as buffers without a copy, and the rest is read by each task."""
    packed, buffers = reading.PackedTexts.pack([f"{number}.jpg" for number in range(10_000)]), []
    assert len(pickle.dumps(packed, protocol=5, buffer_callback=buffers.append)) < 1000 and len(buffers) == 2
    read_only = pickle.loads(pickle.dumps(packed, protocol=5, buffer_callback=buffers.append), buffers=buffers[:2])
    assert read_only.take(np.array([9_998, 9_999])) == ["9998.jpg", "9999.jpg"]
