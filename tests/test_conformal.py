"""Prediction sets: coverage on images that they were not calibrated on."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_folders import CLASSES, finished_run

from animalclf.errors import UserError
from animalclf.features.conformal import group_weights, prediction_sets, set_threshold
from animalclf.features.folds import deal_folds
from animalclf.inference.extra_columns import add_sets, add_top_k
from animalclf.inference.prediction_sets import open_calibration, set_sizes
from animalclf.predictions import FORMATS, class_probabilities, predictions_table, write_predictions
from animalclf.utils import storage


def labelled_probabilities(generator, images, classes=6):
    """Probabilities (N, C) of a model that is overconfident, and the labels int64 (N,)."""
    labels = generator.integers(0, classes, images)
    logits = generator.normal(size=(images, classes)) * 1.5 + 3 * np.eye(classes)[labels]
    exponentials = np.exp(1.7 * logits)
    return exponentials / exponentials.sum(1, keepdims=True), labels


@pytest.mark.parametrize("coverage", [0.9, 0.7])
def test_the_true_class_is_in_the_set_as_often_as_asked_over_20_splits(coverage):
    generator = np.random.default_rng(0)
    probabilities, labels = labelled_probabilities(generator, 600)
    groups = np.repeat(np.arange(300), 2)  # each image has a near-duplicate
    probabilities, labels = np.repeat(probabilities[:300], 2, axis=0), np.repeat(labels[:300], 2)
    covered = []
    for seed in range(20):
        half = deal_folds(labels, groups, 2, seed) == 0
        threshold = set_threshold(probabilities[half], labels[half], coverage, group_weights(groups[half], half.sum()))
        members = prediction_sets(probabilities[~half], threshold)
        covered.append(members[np.arange((~half).sum()), labels[~half]].mean())
    assert np.mean(covered) == pytest.approx(coverage, abs=0.02)


def test_near_duplicates_count_once():
    probabilities = np.array([[0.9, 0.1]] * 9 + [[0.2, 0.8]] * 91)
    labels, groups = np.zeros(100, np.int64), np.array([*range(9), *[9] * 91])
    assert set_threshold(probabilities, labels, 0.8, np.ones(100)) == pytest.approx(0.2)
    assert set_threshold(probabilities, labels, 0.8, group_weights(groups, 100)) == pytest.approx(0.9)


def test_near_duplicates_of_a_run_share_a_weight(tmp_path):
    probabilities, labels = labelled_probabilities(np.random.default_rng(3), 5, len(CLASSES))
    run = finished_run(tmp_path / "run", probabilities, labels, groups=np.array([7, 2, 7, 7, 2]))
    assert open_calibration(run, CLASSES, 0.6).weights.tolist() == pytest.approx([1 / 3, 1 / 2, 1 / 3, 1 / 3, 1 / 2])


def test_too_few_images_give_sets_of_all_classes():
    threshold = set_threshold(np.array([[0.9, 0.1]] * 8), np.zeros(8, np.int64), 0.9, np.ones(8))
    assert threshold == 0 and prediction_sets(np.array([[1.0, 0.0]]), threshold).all()
    assert set_threshold(np.array([[0.9, 0.1]] * 9), np.zeros(9, np.int64), 0.9, np.ones(9)) == pytest.approx(0.9)


def test_other_class_priors_keep_the_coverage(tmp_path):
    generator = np.random.default_rng(1)
    classes, priors = len(CLASSES), np.array([0.05, 0.15, 0.8])
    probabilities, labels = labelled_probabilities(generator, 3000, classes)
    run = finished_run(tmp_path / "run", probabilities[:1500], labels[:1500])
    calibration = open_calibration(run, CLASSES, 0.9)
    train = np.bincount(labels[:1500], minlength=classes) / 1500
    chosen = generator.choice(1500, 4000, p=(priors / train)[labels[1500:]] / (priors / train)[labels[1500:]].sum())
    from animalclf.inference.prior_shift import adjust

    corrected = adjust(probabilities[1500:][chosen], train, priors)
    members = calibration.sets(corrected, train.tolist(), priors)
    assert members[np.arange(4000), labels[1500:][chosen]].mean() == pytest.approx(0.9, abs=0.03)


def test_sets_and_further_classes_are_columns_in_the_order_of_their_probability():
    probabilities = np.array([[0.2, 0.5, 0.3], [0.9, 0.06, 0.04], [0.34, 0.33, 0.33]])
    table = pd.DataFrame({"id": list("abc")})
    assert add_sets(table, probabilities >= 0.3, probabilities, CLASSES)["set"].tolist() == [
        ["bee", "cow"],
        ["ape"],
        ["ape", "bee", "cow"],
    ]
    assert add_sets(table, probabilities >= 0.95, probabilities, CLASSES)["set"].tolist() == [[], [], []]
    top = add_top_k(table, probabilities, CLASSES, 9)
    assert top["predicted_2"].tolist() == ["cow", "bee", "bee"] and top["probability_3"].tolist() == [0.2, 0.04, 0.33]
    assert list(add_top_k(table, probabilities, CLASSES, 1)) == ["id"]


def test_a_set_is_a_list_of_names_but_in_csv(tmp_path):
    table = pd.DataFrame({"id": list("abc"), "set": [["bee", "cow"], ["ape"], []]})
    files = [str(tmp_path / f"a.{suffix}") for suffix in FORMATS]
    for file in files:
        write_predictions(file, table)
    assert [list(names) for names in pd.read_parquet(files[0])["set"]] == [["bee", "cow"], ["ape"], []]
    assert Path(files[1]).read_text() == "id,set\na,bee|cow\nb,ape\nc,\n"
    assert [json.loads(line)["set"] for line in Path(files[2]).read_text().splitlines()] == table["set"].tolist()
    sizes = set_sizes(table["set"])
    assert (sizes.mean, sizes.one, sizes.empty) == pytest.approx((1, 1 / 3, 1 / 3))


def evaluated(run, **changes):
    """Files as `evaluate` writes them of the run's validation images with views=flip, with `changes` of the result."""
    result = run.read_result()
    written = {"run": run.root, "data": "set", "split": "val", "prior": "train", "views": "flip", "epoch": 2}
    more = {"class_priors": {}, "images": 40, "unreadable": [], "notes": [], "predictions": "a.parquet", "seconds": 1.0}
    storage.write_json(
        run.url("predictions", "evaluate-val-flip.json"), {**result["val"], **written, **more, **changes}
    )
    run.write_predictions("evaluate-val-flip", run.predictions("val"))


def test_views_are_calibrated_on_the_runs_own_images_by_its_present_model_only(tmp_path):
    probabilities, labels = labelled_probabilities(np.random.default_rng(2), 40, 3)
    run = finished_run(tmp_path / "run", probabilities, labels)
    evaluated(run)
    assert len(open_calibration(run, CLASSES, 0.9, "flip").labels) == 40
    first_evaluate = pytest.raises(UserError, match="first evaluate the run with views=flip")
    for change in ({"epoch": 1}, {"split": ""}, {"prior": "flip"}, {"views": None}, {"predictions": "a.csv"}):
        evaluated(run, **change)
        with first_evaluate:
            open_calibration(run, CLASSES, 0.9, "flip")
    evaluated(run)
    own = run.predictions("val")
    for strangers in (own.assign(path="a/" + own["path"]), own.assign(label=CLASSES[0]), own[1:]):
        run.write_predictions("evaluate-val-flip", strangers)
        with first_evaluate:
            open_calibration(run, CLASSES, 0.9, "flip")


def test_a_run_with_folds_has_sets_of_the_plain_images_only(tmp_path):
    probabilities, labels = labelled_probabilities(np.random.default_rng(2), 40, 3)
    run = finished_run(tmp_path / "run", probabilities, labels, sets=["train.folds=5"])
    with pytest.raises(UserError, match="sets of a run with folds are of the plain images; use them without views"):
        open_calibration(run, CLASSES, 0.9, "flip")


def test_small_probabilities_are_whole_in_every_format(tmp_path):
    small = np.array([[1e-9, 3.25e-8, 1]], np.float32)
    table = predictions_table(["a.jpg"], CLASSES, small, ["ok"])
    files = [str(tmp_path / f"a.{suffix}") for suffix in FORMATS]
    for file, read in zip(files, (pd.read_parquet, pd.read_csv, partial(pd.read_json, lines=True)), strict=True):
        write_predictions(file, table)
        np.testing.assert_allclose(class_probabilities(read(file), CLASSES), small, rtol=1e-5)


def test_what_cannot_be_calibrated_is_refused(tmp_path):
    probabilities, labels = labelled_probabilities(np.random.default_rng(2), 40, 3)
    run = finished_run(tmp_path / "run", probabilities, labels)
    for coverage in (0, 1, 1.5, -1, float("nan")):
        with pytest.raises(UserError, match="not a coverage between 0 and 1"):
            open_calibration(run, CLASSES, coverage)
    assert open_calibration(run, CLASSES, 40 / 41).sets(np.eye(3), [1 / 3] * 3, np.full(3, 1 / 3)).shape == (3, 3)
    with pytest.raises(UserError, match=r"0\.98 needs more than its 40 validation images .* use at most 0\.975"):
        open_calibration(run, CLASSES, 0.98)
    calibration, train = open_calibration(run, CLASSES, 0.9), [1 / 3] * 3
    assert not calibration.problem(train, np.full(3, 1 / 3))
    rare = np.array([0.0, 0.05, 0.95])  # few images of the last class speak for all of it
    assert calibration.sets(np.eye(3), train, rare).sum() == 3 and not calibration.problem(train, rare)
    strict = open_calibration(run, CLASSES, 0.97)
    assert strict.sets(np.eye(3), train, rare).all()
    assert "under these class priors a coverage of 0.97 needs more than the 40" in strict.problem(train, rare)
    with pytest.raises(UserError, match="first evaluate the run with views=flip"):
        open_calibration(run, CLASSES, 0.9, "flip")
    run.write_result({**run.read_result(), "val": None})
    with pytest.raises(UserError, match="need validation images, and this run has none"):
        open_calibration(run, CLASSES, 0.9)
