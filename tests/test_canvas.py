"""Images with their shape kept: on canvases in the prepared set, and on their own shape in the model."""

import cv2
import numpy as np
import pytest
import torch
from helpers import tiny_config

import animalclf
from animalclf import config as configuration
from animalclf.cli import main
from animalclf.config import Model
from animalclf.data.resize import resize, stored_image
from animalclf.errors import UserError
from animalclf.inference.probabilities import batch_outputs
from animalclf.models import build
from animalclf.models.classifier import content_boxes
from animalclf.runs import Run
from animalclf.training.fitted_heads import check_frozen_base
from animalclf.utils.canvas import PADDING, sides_on_canvas


@pytest.mark.parametrize(
    "sides, expected",
    [
        ((225, 300), (288, 384)),
        ((300, 225), (384, 288)),
        ((1000, 1000), (288, 288)),
        ((1000, 1500), (256, 384)),
        ((100, 2000), (32, 384)),
        ((1, 1), (288, 288)),
    ],
)
def test_sides_on_a_canvas(sides, expected):
    assert sides_on_canvas(*sides, 384) == expected


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def test_an_image_on_its_canvas():
    image = photo(300, 400)
    canvas = stored_image(image, 128, "keep")
    assert canvas.shape == (128, 128, 3) and (canvas[96:] == PADDING).all()
    expected = cv2.resize(image, (128, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(canvas[:96].astype(int) - expected).mean() < 1
    assert np.array_equal(stored_image(image, 128, "squash"), resize(image, 128))


def test_boxes_of_canvases():
    canvases = np.stack([stored_image(photo(*sides), 128, "keep") for sides in ((300, 400), (400, 300), (300, 300))])
    assert content_boxes(torch.from_numpy(canvases)).tolist() == [[0, 96, 0, 128], [0, 128, 0, 96], [0, 96, 0, 96]]
    mirrored = torch.from_numpy(canvases[:, :, ::-1].copy())
    assert content_boxes(mirrored).tolist() == [[0, 96, 0, 128], [0, 128, 32, 128], [0, 96, 32, 128]]
    blank = torch.full((1, 128, 128, 3), PADDING, dtype=torch.uint8)
    assert content_boxes(blank).tolist() == [[0, 128, 0, 128]]


def test_a_model_computes_on_the_shape_of_each_image():
    spec = Model(name="efficientnet_lite0", input_size=96, weights="none", trainable=("head",))
    model = build(spec, 3, keep_shape=True).eval()
    canvases = [stored_image(photo(*sides), 128, "keep") for sides in ((300, 400), (400, 300), (300, 400), (300, 300))]
    with torch.no_grad():
        features = model.features(torch.from_numpy(np.stack(canvases)))
        model.keep_shape = False
        for canvas, (height, width), expected in zip(
            canvases, ((96, 128), (128, 96), (96, 128), (96, 96)), features, strict=True
        ):
            alone = model.features(torch.from_numpy(canvas[None, :height, :width]))
            torch.testing.assert_close(alone[0], expected, rtol=1e-4, atol=1e-6)


def test_mirrored_views_are_those_of_the_images():
    spec = Model(name="efficientnet_lite0", input_size=96, weights="none", trainable=("head",))
    model = build(spec, 3, keep_shape=True).eval()
    torch.nn.init.normal_(model.head.logits.weight)
    image = photo(400, 300)
    batches = [
        {"image": stored_image(each, 128, "keep")[None], "label": np.zeros(1, np.int64), "index": np.array([number])}
        for number, each in enumerate((image, image[:, ::-1]))
    ]
    probabilities = batch_outputs(model, iter(batches), torch.device("cpu"), bf16=False, views="flip").probabilities
    np.testing.assert_allclose(probabilities[0], probabilities[1], atol=1e-3)


def test_settings_that_need_squares_are_refused():
    with pytest.raises(
        UserError, match=r"big_cnn cannot compute on images of different shapes; prepare them with --set"
    ):
        build(Model(input_size=96), 3, keep_shape=True)
    with pytest.raises(UserError, match=r"set model\.trainable=head"):
        build(Model(name="efficientnet_lite0", input_size=96), 3, keep_shape=True)
    with pytest.raises(UserError, match=r"data\.stored_size: with data\.resize=keep a multiple of 32, not 100"):
        configuration.load("quick", {"data.stored_size": 100, "model.input_size": 64})
    config = configuration.load("quick", {"augment.flip": True, "train.heads": []})
    with pytest.raises(UserError, match=r"data\.resize=keep: needs features that do not change"):
        check_frozen_base(config, build(config.model, 3, load_weights=False, keep_shape=True))


def test_hashes_of_squashed_sets_stay():
    data = tiny_config().data
    assert "resize" not in configuration.hashed_json(data)
    assert "resize" in configuration.hashed_json(configuration.load("quick").data)


@pytest.mark.ray
def test_a_run_on_images_of_their_own_shape(tmp_path, ray_local):
    photos = tmp_path / "photos"
    for label, name in enumerate(("left", "right")):
        (photos / name).mkdir(parents=True)
        for number in range(8):
            image = photo(60 + 4 * number, 80 if number % 2 else 50, seed=number)
            half = image.shape[1] // 2
            image[:, :half] //= 1 + 3 * label
            cv2.imwrite(str(photos / name / f"{name}{number}.png"), image)
    sets = {"model.name": "efficientnet_lite0", "model.input_size": 32, "data.stored_size": 96, "data.val": 0.25}
    result = animalclf.train(
        photos, out=tmp_path / "run", recipe="quick", set=sets | {"data.near_duplicates": False}, local=True
    )
    assert [head.kind for head in result.heads] == ["logistic", "kernel_ridge"]
    evaluation = animalclf.evaluate(result.run)
    assert evaluation["loss"] == pytest.approx(result.val["loss"], abs=0.02)
    outside = animalclf.evaluate(result.run, data=photos)
    assert outside.rows == 16 and outside["accuracy"] >= 0.75
    paths = sorted(str(path) for path in photos.glob("*/*.png"))
    stored = animalclf.predict(result.run, photos, out=tmp_path / "predictions")
    assert sum(stored.predicted.values()) == 16
    assert len(animalclf.load(result.run).predict(paths)) == 16


def test_quick_is_the_default_and_a_resume_takes_the_run_s_own_recipe(tmp_path, monkeypatch):
    from animalclf.training import checks

    recipes = []

    def stop(config):
        recipes.append(config.name)
        raise UserError("far enough")

    monkeypatch.setattr(checks, "resolve_config", stop)
    Run(str(tmp_path / "run")).write_config(tiny_config())
    for arguments in ({}, {"out": tmp_path / "run", "resume": True}):
        with pytest.raises(UserError, match="far enough"):
            animalclf.train(tmp_path, **arguments)
    assert main(["train", "--data", str(tmp_path)]) == 2
    assert recipes == ["quick", "big_cnn", "quick"]
