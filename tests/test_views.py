"""Views averaged at prediction time, and the transport of predictions to known class counts."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from animalclf.config import Model
from animalclf.data.augment import evaluation_view
from animalclf.data.loader import load_images
from animalclf.errors import UserError
from animalclf.features.temperature import fit_temperature
from animalclf.inference import prior_shift
from animalclf.inference.evaluate import evaluate
from animalclf.inference.labelled import LabelledPredictions
from animalclf.inference.probabilities import view_outputs
from animalclf.inference.views import CANVAS_VIEWS, VIEWS, canvas_centre, check_views, mirror
from animalclf.models import build
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.training.final_eval import validation_folds
from animalclf.utils.canvas import PADDING


def test_transport_scales_rows_and_columns_until_the_counts_fit():
    generator = np.random.default_rng(0)
    probabilities, priors = generator.dirichlet([0.5, 1, 2], 200), np.array([0.5, 0.3, 0.2])
    plan = prior_shift.transport(probabilities, priors)
    np.testing.assert_allclose(plan.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(plan.mean(0), priors, atol=1e-5)
    factors = np.log(plan) - np.log(probabilities)
    np.testing.assert_allclose(factors - factors[:, :1], np.tile(factors[0] - factors[0, 0], (200, 1)), atol=1e-3)
    assert prior_shift.transport(probabilities[:0], priors).shape == (0, 3)


def test_transport_survives_a_class_that_cannot_occur_and_certain_images():
    plan = prior_shift.transport(np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([0.5, 0.5, 0.0]))
    assert np.isfinite(plan).all() and plan[:, 2].max() < 1e-6
    np.testing.assert_allclose(plan.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("views", ["none", "flip", "multi"])
def test_the_probabilities_are_the_mean_over_the_views(untrained_run, tiny_set, tmp_path, views):
    result = evaluate(untrained_run, views=views, out=str(tmp_path))
    assert (result.views or "none") == views and result.predictions.endswith(
        "val.parquet" if views == "none" else f"val-{views}.parquet"
    )
    model, _ = checkpoint.load_model(untrained_run)
    rows = tiny_set.rows("val")
    plain = np.stack(
        [cv2.resize(view, (76, 76), interpolation=cv2.INTER_AREA) for view in load_images(tiny_set).views(rows)]
    )
    middle = np.stack([cv2.resize(view[5:71, 5:71], (76, 76), interpolation=cv2.INTER_AREA) for view in plain])
    batches = {"none": [plain], "flip": [plain, plain[:, :, ::-1]]}
    batches["multi"] = [*batches["flip"], middle, middle[:, :, ::-1]]
    with torch.no_grad():
        expected = np.mean([model(torch.tensor(batch.copy())).softmax(1).numpy() for batch in batches[views]], axis=0)
    stored = pd.read_parquet(result.predictions)
    np.testing.assert_allclose(stored.filter(like="p_").to_numpy(), expected, atol=1e-5)


def test_a_temperature_is_applied_to_each_view_as_predict_applies_it(untrained_run, tiny_set, tmp_path):
    run = Run(str(shutil.copytree(untrained_run, tmp_path / "run")))
    run.write_result({"run": run.root, "best_epoch": 3, "temperature": 3.0})
    stored = pd.read_parquet(evaluate(run.root, views="flip").predictions).filter(like="p_").to_numpy()
    model, rows = checkpoint.load_model(run.root)[0], tiny_set.rows("val")
    model.temperature = 1.0
    plain = evaluation_view(load_images(tiny_set).views(rows), 76)
    labels, groups = tiny_set.labels[rows], tiny_set.groups
    with torch.no_grad():
        logits, flipped = (model(torch.tensor(view.copy())) for view in (plain, plain[:, :, ::-1]))
    folds = validation_folds(labels, None if groups is None else groups[rows])
    for fold in np.unique(folds):
        temperature = fit_temperature(logits.numpy()[folds != fold], labels[folds != fold])
        expected = sum((view / temperature).softmax(1).numpy() for view in (logits, flipped)) / 2
        np.testing.assert_allclose(stored[folds == fold], expected[folds == fold], atol=2e-3)


def test_other_images_never_take_the_name_of_the_runs_own(untrained_run, tmp_path, monkeypatch):
    image = np.eye(3, dtype=np.float32)[:1]
    strangers = LabelledPredictions(["a.jpg"], ["class0"], image, ["ok"])
    monkeypatch.setattr("animalclf.inference.evaluate.predict_images", lambda *_: strangers)
    for split in ("val", "test"):
        (tmp_path / split).mkdir()
        result = evaluate(untrained_run, data=str(tmp_path / split), views="flip", out=str(tmp_path))
        assert result.predictions == str(tmp_path / f"evaluate-data-{split}-flip.parquet")


def test_the_effect_of_the_transport_stands_apart(untrained_run, tmp_path):
    plain, transported = (
        evaluate(untrained_run, prior="uniform", transport=each, out=str(tmp_path)) for each in (False, True)
    )
    (note,) = transported.notes
    before, after = (result.metrics["balanced_accuracy"] for result in (plain, transported))
    accuracies = f"balanced accuracy from {before:.3f} to {after:.3f}"
    assert accuracies in note and "of 6 predicted classes" in note and not plain.notes
    assert transported.transport and not plain.transport and transported.predictions != plain.predictions
    assert Run(untrained_run).exists()
    for prior in ("train", "estimate"):
        with pytest.raises(UserError, match=f"--transport: needs the known class fractions .* not --prior {prior}"):
            evaluate(untrained_run, prior=prior, transport=True)


def test_unknown_views_are_refused():
    assert len(VIEWS["multi"]) == 4
    with pytest.raises(UserError, match="views: 'five' is not one of none, flip, multi"):
        check_views("five")


def test_the_middle_of_an_image_on_a_canvas_fills_its_place():
    photo = np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8)
    canvases = np.full((3, 96, 96, 3), PADDING, np.uint8)
    canvases[0, :32, :64] = photo
    canvases[1] = mirror(canvases[:1])[0]
    middle, mirrored, empty = canvas_centre(canvases)
    expected = cv2.resize(photo[2:30, 4:60], (64, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(middle[:32, :64], expected)
    assert (middle[32:] == PADDING).all() and (middle[:, 64:] == PADDING).all() and (empty == PADDING).all()
    np.testing.assert_array_equal(mirrored[:32, 32:], cv2.resize(photo[2:30, 4:60][:, ::-1], (64, 32), interpolation=3))


def test_a_model_that_keeps_shapes_averages_the_views_of_canvases():
    spec = Model(name="efficientnet_lite0", input_size=64, trainable=("head",), weights="embedded")
    model = build(spec, 2, keep_shape=True).eval()
    torch.nn.init.normal_(model.head.logits.weight, std=0.1)
    canvases = np.full((1, 96, 96, 3), PADDING, np.uint8)
    canvases[0, :64, :96] = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    batch = {"image": canvases, "label": np.zeros(1, np.int64), "index": np.zeros(1, np.int64)}
    outputs = view_outputs(model, iter([batch]), torch.device("cpu"), False, "multi")
    with torch.no_grad():
        views = [view(canvases) for view in CANVAS_VIEWS["multi"]]
        expected = [model(torch.tensor(view.copy())).softmax(1)[0].numpy() for view in views]
    np.testing.assert_allclose(outputs.probabilities[0], expected, atol=1e-5)
    assert len(np.unique(np.round(outputs.probabilities[0, :, 0], 4))) == 4
