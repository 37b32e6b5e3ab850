"""Probably wrong labels: which, from what probabilities, and the files for a person."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import LITE, tiny_prepared
from run_folders import CLASSES, finished_run, guesses

import animalclf
from animalclf.cli import main
from animalclf.data.prepared_set import MANIFEST, Prepared, open_prepared
from animalclf.errors import UserError
from animalclf.labelling import out_of_fold
from animalclf.labelling.confident import LIST_FACTOR, likely_wrong, margins, wrong_labels
from animalclf.labelling.labels import labels_table
from animalclf.labelling.out_of_fold import OutOfFold
from animalclf.prepare.sources.corrections import correct
from animalclf.runs import Run
from animalclf.utils import storage

PLANTED = (1, 6, 20)  # rows of the prepared set with a wrong label


def judged(labels, probabilities, groups=None, classes=("ape", "bee")) -> OutOfFold:
    count = len(labels)
    return OutOfFold(
        paths=[f"{number}.jpg" for number in range(count)],
        labels=np.array(labels, np.int64),
        probabilities=np.array(probabilities, float),
        groups=np.arange(count) if groups is None else np.array(groups),
        classes=list(classes),
        origin="a test",
    )


def test_confident_learning_counts_the_example_of_its_definition():
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.2, 0.8], [0.4, 0.6], [0.55, 0.45]])
    labels = np.array([0, 0, 0, 1, 1, 1])
    # Thresholds: mean of 0.9, 0.7, 0.2 = 0.6 and of 0.8, 0.6, 0.45 = 0.617. Image 2 is confident of class 1; image 5 is
    # predicted as class 0, but 0.55 is below its threshold.
    assert wrong_labels(probabilities, labels) == 1
    margin, other = margins(probabilities, labels)
    assert np.allclose(margin, [0.8, 0.4, -0.6, 0.6, 0.2, -0.1]) and other.tolist() == [1, 1, 1, 0, 0, 0]
    assert likely_wrong(probabilities, labels).tolist() == [2, 5]
    assert likely_wrong(probabilities, labels, count=1).tolist() == [2]
    assert wrong_labels(np.eye(3)[:2], np.array([0, 1])) == 0  # a class without images is never confident


def test_planted_wrong_labels_come_first():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 5, 2000)
    probabilities = generator.dirichlet(np.ones(5), 2000) * 0.4
    probabilities[np.arange(2000), truth] += 0.6
    planted = generator.choice(2000, 100, replace=False)
    labels = truth.copy()
    labels[planted] = (labels[planted] + generator.integers(1, 5, 100)) % 5
    listed, estimate = likely_wrong(probabilities, labels), wrong_labels(probabilities, labels)
    assert set(listed) <= set(planted) and len(listed) == round(LIST_FACTOR * estimate) > 90
    assert not len(likely_wrong(probabilities, truth))


def test_the_table_lists_the_worst_first_then_contradictory_duplicates_then_decisions():
    images = judged([0, 0, 1, 1, 0], [[0.2, 0.8], [0.4, 0.6], [0.1, 0.9], [0.3, 0.7], [0.9, 0.1]], [0, 1, 2, 3, 3])
    decided = [{"path": "1.jpg", "label": "bee", "suggested": "ape", "decision": "relabel"}]
    table = labels_table(images, np.array([0, 1]), np.array([3, 4]), decided)
    assert table["path"].tolist() == ["0.jpg", "3.jpg", "4.jpg", "1.jpg"]
    assert table["suggested"].tolist() == ["bee", "", "", "ape"]
    assert table["decision"].tolist() == ["", "", "", "relabel"]
    assert table["score"].tolist()[:3] == [-0.6, 0.4, 0.8]
    assert table["reason"].tolist() == [
        "predicted as bee", "near-duplicate of 4.jpg, which has the label ape",
        "near-duplicate of 3.jpg, which has the label bee", "decided before",
    ]  # fmt: skip


def test_a_table_of_decisions_alone():
    none = np.empty(0, np.int64)
    decided = [{"path": "1.jpg", "label": "bee", "suggested": "ape", "decision": "relabel"}]
    table = labels_table(judged([0, 1], [[0.8, 0.2], [0.3, 0.7]]), none, none, decided)
    assert table["path"].tolist() == ["1.jpg"] and table["reason"].tolist() == ["decided before"]
    assert table.to_csv(index=False).splitlines()[1] == "1.jpg,bee,ape,relabel,,,,decided before"
    assert labels_table(judged([0], [[0.8, 0.2]]), none, none).empty


@pytest.fixture
def run_with_folds(tmp_path) -> Run:
    """A run with 3 folds whose images 0 and 1 have wrong labels; the name of the first is HTML."""
    truth = np.arange(60) % 3
    probabilities = guesses(truth, 1.0, np.random.default_rng(0))
    labels = truth.copy()
    labels[:2] = [1, 2]
    paths = [f"{CLASSES[label]}/{number}.jpg" for number, label in enumerate(labels)]
    paths[0] = "bee/<script>alert(1)</script>.jpg"
    groups = np.arange(60)
    groups[5] = 4
    sets = ["train.folds=3", "train.select_fraction=0", "train.patience=0"]
    return finished_run(tmp_path / "run", probabilities, labels, sets=sets, paths=paths, groups=groups)


def test_a_run_with_folds_is_judged_by_them(run_with_folds, capsys):
    assert main(["labels", run_with_folds.root, "--json"]) == 0
    output = capsys.readouterr()
    result = json.loads(output.out.splitlines()[-1])
    assert result["estimated"] == result["likely_wrong"] == 2 and result["contradictory"] == 1
    printed = " ".join(output.err.split())
    assert "write keep, relabel or drop into the column `decision`" in printed
    assert "score: the probability of the label minus that of the suggestion; the lowest first" in printed
    table = pd.read_csv(result["table"], keep_default_na=False)
    shown = [line.split("│")[-2].strip() for line in output.err.splitlines() if line.startswith("│") and "-0." in line]
    assert shown == [f"{score:.4f}" for score in sorted(table["score"]) if score < 0]
    assert table["path"].tolist()[:2] == ["bee/<script>alert(1)</script>.jpg", "cow/1.jpg"]
    assert table["suggested"].tolist() == ["ape", "bee", "", ""] and (table["decision"] == "").all()
    page = Path(result["page"]).read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "default-src 'none'" in page
    assert page.count("<li>") == 4 and "Near-duplicates with different labels" in page


def test_the_filled_table_is_a_file_of_corrections_and_is_not_replaced(run_with_folds):
    result = animalclf.labels(run_with_folds.root)
    table = pd.read_csv(result.table, keep_default_na=False)
    table.loc[:1, "decision"] = ["relabel", "drop"]
    table.to_csv(result.table, index=False)
    images = run_with_folds.predictions("val")[["path", "label"]]
    files, record = correct(images, result.table, "photos")
    assert (record["relabelled"], record["dropped"], record["undecided"]) == (1, 1, 2) and len(files) == 59
    with pytest.raises(UserError, match="has 2 decisions that a new list would replace"):
        animalclf.labels(run_with_folds.root)
    assert animalclf.labels(run_with_folds.root, out=f"{run_with_folds.root}/other").listed == 4


@pytest.fixture(scope="module")
def planted_set(tmp_path_factory) -> Prepared:
    """A prepared set with PLANTED wrong labels, which was corrected before in one of them."""
    prepared = tiny_prepared(tmp_path_factory.mktemp("planted") / "set", (12, 12, 12))
    manifest = prepared.manifest.copy()
    manifest.loc[list(PLANTED), "label"] = "class2"
    storage.write_table(f"{prepared.root}/{MANIFEST}", manifest)
    path = manifest["path"][PLANTED[0]]
    decisions = [{"path": path, "label": "class0", "suggested": "class2", "decision": "relabel"}]
    record = {"file": "labels.csv", "relabelled": 1, "dropped": 0, "kept": 0, "undecided": 0, "decisions": decisions}
    info = {**prepared.info, "corrections": record}
    storage.write_json(f"{prepared.root}/dataset.json", info)
    return open_prepared(prepared.root)


def test_a_run_with_a_frozen_base_is_judged_by_heads_on_its_features(planted_set, tmp_path):
    prepared = planted_set
    settings = LITE | {"data.resize": "squash", "model.weights": "none", "train.heads": ["lda"]}
    settings |= {"train.precision": "fp32"}
    run = animalclf.train(prepared.root, recipe="quick", out=tmp_path / "run", set=settings, local=True).run
    result = animalclf.labels(run)
    table = pd.read_csv(result.table, keep_default_na=False)
    paths = prepared.manifest["path"]
    assert set(table["path"][:2]) == {paths[row] for row in PLANTED[1:]}
    assert table["path"].iloc[-1] == paths[PLANTED[0]] and table["decision"].tolist()[-1] == "relabel"
    assert (table["path"] == paths[PLANTED[0]]).sum() == 1 and result.decided == 1
    assert result.images == 36 and Path(result.page).read_text().count("data:image/jpeg") == result.listed
    animalclf.labels(run)  # what was decided before is no decision that would be lost


def test_near_duplicates_are_judged_by_heads_that_saw_none_of_them(tiny_set, tmp_path, monkeypatch):
    groups = np.arange(len(tiny_set.manifest)) // 4
    prepared = replace(tiny_set, manifest=tiny_set.manifest.assign(group=groups))
    dealt = []

    def without_heads(training, folds, kinds):
        dealt.extend(folds)
        return np.full((len(folds), training.classes), 0.5)

    monkeypatch.setattr(out_of_fold, "prepared_set_of", lambda run: prepared)
    monkeypatch.setattr(out_of_fold, "trains_on_features", lambda config: True)
    monkeypatch.setattr(out_of_fold, "frozen_features", lambda run, config, prepared, rows: np.zeros((len(rows), 2)))
    monkeypatch.setattr(out_of_fold, "head_probabilities", without_heads)
    images = out_of_fold.out_of_fold(finished_run(tmp_path / "run", np.eye(3), np.arange(3)))
    assert len(set(dealt)) == out_of_fold.FOLDS
    assert len(set(zip(images.groups.tolist(), dealt, strict=True))) == len(set(images.groups.tolist()))


def test_what_cannot_be_judged_is_refused_with_the_command_that_helps(tmp_path, untrained_run):
    labels = np.arange(30) % 3
    run = finished_run(tmp_path / "run", guesses(labels, 0.9, np.random.default_rng(0)), labels, recipe="big_cnn")
    with pytest.raises(UserError, match=r"train it in folds: animalclf train --data .* --folds 5 --out .*run-folds"):
        animalclf.labels(run.root)
    with pytest.raises(UserError, match="the training did not finish"):
        animalclf.labels(untrained_run)
    with pytest.raises(UserError, match="no run in this folder"):
        animalclf.labels(tmp_path)


def test_a_prepared_set_that_is_gone_is_named_once(tmp_path, capsys):
    run = finished_run(tmp_path / "run", np.eye(3), np.arange(3), recipe="quick")
    assert main(["labels", run.root]) == 2
    assert capsys.readouterr().err.count("environment.json names no prepared set") == 1
