"""Cached maps of frozen layers: the same training without running them in every step."""

import os
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import LITE, tiny_config, tiny_prepared
from test_training import metrics, train_into

from animalclf.config import Model
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.data.sampler import sampling_plan
from animalclf.errors import UserError
from animalclf.models import build
from animalclf.models.classifier import Classifier
from animalclf.runs import Run
from animalclf.training import cached_views, launch
from animalclf.training.context import TrainContext
from animalclf.training.distributed import RankContext
from animalclf.training.resources import Workers
from animalclf.training.train import ignore

BASE = {key.replace(".", "__"): value for key, value in LITE.items()} | {"optim__lr": 1e-3}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return tiny_prepared(tmp_path_factory.mktemp("prepared"), (12, 8, 4), size=40)


@pytest.fixture
def images(monkeypatch, tmp_path):
    """The numbers of images that the frozen layers see, batch by batch; the cache folder is the test's."""
    monkeypatch.setenv("ANIMALCLF_CACHE", str(tmp_path / "cache"))
    sizes, pixels = [], Classifier._pixels

    def counted(self, images):
        sizes.append(len(images))
        return pixels(self, images)

    monkeypatch.setattr(Classifier, "_pixels", counted)
    return sizes


def config(epochs=2, views=2, **sets):
    tuned = {"model__weights": "embedded", "model__trainable": ["last", "head"], "train__cached_views": views}
    return tiny_config(epochs, **BASE | tuned | sets)


def views_of(settings, prepared):
    """The views that a training with these settings would use."""
    images, ranks = load_images(prepared), RankContext()
    plan = sampling_plan(prepared, settings)
    context = TrainContext(settings, prepared, plan, Run(""), ranks, partial(loader, images=images), ignore)
    return cached_views.with_cached_views(context).make_loader(plan, []).views


def loader(plan, passes, images):
    return MemoryLoader(plan, images)


def files(tmp_path):
    return sorted(name for name in os.listdir(tmp_path / "cache") if name.endswith(".npy"))


def test_the_training_is_that_on_images(tmp_path, prepared, images):
    """With a view for each epoch: to the rounding of the maps. The frozen layers run once for each view and image."""
    plain = train_into(tmp_path / "plain", config(views=0), prepared)
    assert sum(images) == 18 * 2 + 6 * 2 + 6 + 24  # epochs, their validation, the result and the distances at the end
    images.clear()
    cached = train_into(tmp_path / "cached", config(views=2), prepared)
    assert sum(images) == 1 + 24 + 2 * 18  # for the shape, as they are, and two views
    one_view = train_into(tmp_path / "one", config(views=1), prepared)
    losses = [[row.train_loss for row in run.metrics()] for run in (plain, cached, one_view)]
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)
    assert losses[2][0] == losses[1][0] and abs(losses[2][1] / losses[1][1] - 1) > 1e-2
    probabilities = [run.predictions("val").filter(like="p_").to_numpy() for run in (plain, cached)]
    np.testing.assert_allclose(*probabilities, atol=1e-2)
    assert cached.metrics()[0].features_seconds > 0 and cached.metrics()[1].features_seconds is None


def test_folds_and_later_runs_share_the_maps(tmp_path, prepared, images):
    tuning = {
        "train__head_start": "fitted",
        "optim__wise_ft": 0.5,
        "augment__cutmix": 1.0,
        "train__balance": "sampling",
    }
    folds = train_into(tmp_path / "folds", config(1, 1, train__folds=2, **tuning), prepared)
    assert sum(images) == 1 + 24 + 24 and len(folds.result().folds) == 2
    for lr in (1e-3, 1e-2):
        views_of(config(1, 1, train__folds=2, **tuning | {"optim__lr": lr}), prepared)
    assert sum(images) == 49 + 2


@pytest.mark.parametrize(
    "sets",
    [{"seed": 1}, {"augment__flip": False}, {"train__cached_views": 2}, {"model__trainable": ["block7", "last"]}],
)
def test_other_views_have_their_own_file(tmp_path, prepared, images, sets):
    first, other = (views_of(each, prepared) for each in (config(views=1), config(views=1, **sets)))
    assert len(files(tmp_path)) == 2
    assert first.maps.shape != other.maps.shape or not np.array_equal(first.maps, other.maps)


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, prepared, images):
    uninterrupted = train_into(tmp_path / "uninterrupted", config(3), prepared)
    train_into(tmp_path / "resumed", config(3), prepared, stop_after=1)
    (tmp_path / "cache" / files(tmp_path)[0]).write_bytes(b"damaged")
    assert metrics(train_into(tmp_path / "resumed", config(3), prepared)) == metrics(uninterrupted)


def test_the_oldest_files_go(tmp_path, prepared, images):
    (tmp_path / "cache").mkdir()
    for number in range(cached_views.MAX_FILES):
        path = tmp_path / "cache" / f"views-{number}.npy"
        path.touch()
        os.utime(path, (number, number))
    views_of(config(views=1), prepared)
    assert len(files(tmp_path)) == cached_views.MAX_FILES and files(tmp_path)[0] == "views-1.npy"


@pytest.mark.parametrize(
    "sets, message",
    [
        ({"model__trainable": ["head"]}, r"train\.cached_views: no layer of the base trains"),
        ({"model__trainable": ["all"]}, r"efficientnet_lite0 has no frozen layers below"),
        (
            {"model__name": "squeezenet1_1", "model__weights": "none", "model__trainable": ["features.12", "head"]},
            "squeezenet1_1 has no frozen layers below .* no plain sequence",
        ),
    ],
)
def test_models_that_do_not_fit_are_refused(tmp_path, prepared, images, sets, message):
    with pytest.raises(UserError, match=message):
        views_of(config(**sets), prepared)


def test_a_full_disk_is_refused_before_anything_is_computed(tmp_path, prepared, images, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=cached_views.FREE_BYTES + 1000))
    with pytest.raises(UserError, match=r"the maps take \d+ kB, .* has room for 1\.0 kB; set a smaller train\.cached"):
        views_of(config(), prepared)
    assert sum(images) == 1


def test_the_size_is_known_without_computing():
    with torch.device("meta"):
        model = build(Model(name="vgg16_pooled", input_size=224, trainable=("block5", "head")), 10)
    shape = cached_views.map_shape(model, 224)
    assert shape == (14, 14, 512) and cached_views.stored_bytes(config(views=4), shape, 240, 320) == 256_901_120


def test_the_plan_line_has_the_bytes_and_several_workers_are_refused(prepared):
    settings = config()
    model = launch.check_model(settings, 3, load_weights=False)
    placements = [launch.Placement(Workers.fixed(count), True, "") for count in (1, 2)]
    assert "; maps of 2 views 0.00 GB in " in launch._views(settings, prepared, model, placements[0], local=True)
    with pytest.raises(UserError, match=r"train\.cached_views: .* not 2 CPU workers; set --workers 1"):
        launch._views(settings, prepared, model, placements[1], local=True)
