"""Features of a frozen base in the prepared set's folder: shared, keyed, extended, repaired, bounded."""

import numpy as np
import pytest
from helpers import tiny_config, tiny_prepared
from test_training import metrics, train_into

from animalclf.models.classifier import Classifier
from animalclf.training import feature_cache
from animalclf.training.feature_cache import FeatureCache, Features
from animalclf.utils import storage


@pytest.fixture
def prepared(tmp_path):
    return tiny_prepared(tmp_path / "prepared", (24, 16, 8), size=40)


@pytest.fixture
def computed(monkeypatch):
    """The numbers of images whose features are computed, batch by batch."""
    sizes, features = [], Classifier.features

    def counted(self, images):
        sizes.append(len(images))
        return features(self, images)

    monkeypatch.setattr(Classifier, "features", counted)
    return sizes


def config(**sets):
    plain = {"augment__flip": False, "augment__rotation": 0, "augment__shift": 0, "augment__zoom": [1, 1]}
    network = {"model__name": "efficientnet_lite0", "model__input_size": 32, "data__stored_size": 40}
    return tiny_config(1, **plain | network | {"model__trainable": ["head"], "train__heads": ["lda"]} | sets)


def files(prepared):
    fs, root = storage.filesystem(prepared.root)
    fs.invalidate_cache()
    return sorted(path for path in fs.ls(root, detail=False) if "features-" in path)


def test_a_second_training_reads_what_the_first_computed(tmp_path, prepared, computed):
    first = train_into(tmp_path / "first", config(), prepared)
    assert sum(computed) == 48 and len(files(prepared)) == 1
    second = train_into(tmp_path / "second", config(train__heads=["lda", "logistic"]), prepared)
    assert sum(computed) == 48
    third = train_into(tmp_path / "third", config(), prepared)
    assert metrics(third) == metrics(first) and metrics(second) != metrics(first)
    uncached = train_into(tmp_path / "uncached", config(train__cache_features=False), prepared)
    assert sum(computed) == 96 and metrics(uncached) == metrics(first)


@pytest.mark.parametrize(
    "sets", [{"model__pool": "max"}, {"model__input_size": 40}, {"train__precision": "bf16"}, {"seed": 3}]
)
def test_another_base_or_view_has_its_own_file(tmp_path, prepared, computed, sets):
    """The seed draws the weights of the base here."""
    train_into(tmp_path / "first", config(), prepared)
    train_into(tmp_path / "second", config(**sets), prepared)
    assert sum(computed) == 96 and len(files(prepared)) == 2


def test_images_that_are_missing_are_computed_and_added(tmp_path, prepared, computed):
    train_into(tmp_path / "few", config(data__limit=24), prepared)
    few = sum(computed)
    assert few < 30
    all_images = train_into(tmp_path / "all", config(), prepared)
    assert sum(computed) == 48
    fresh = train_into(tmp_path / "fresh", config(train__cache_features=False), prepared)
    assert all_images.metrics()[0].train_loss == pytest.approx(fresh.metrics()[0].train_loss, rel=1e-4)
    train_into(tmp_path / "again", config(), prepared)
    assert sum(computed) == 96


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda data: data[:200] + b"\0" * 60 + data[260:], lambda data: b"<html>"],
)
def test_a_damaged_file_is_computed_again_with_a_line(tmp_path, prepared, computed, capsys, damage):
    first = train_into(tmp_path / "first", config(), prepared)
    (path,) = files(prepared)
    content = storage.read_bytes(path)
    storage.write_bytes(path, damage(content))
    second = train_into(tmp_path / "second", config(), prepared)
    assert sum(computed) == 96 and metrics(first) == metrics(second)
    assert f"{path}: cannot be read" in capsys.readouterr().err.replace("\n", "")
    assert storage.read_bytes(path) == content


def test_a_folder_that_cannot_be_written_costs_a_line(tmp_path, prepared, computed, capsys, monkeypatch):
    def refuse(url, content):
        raise OSError("read-only file system")

    monkeypatch.setattr(
        feature_cache.storage, "write_bytes", lambda url, content: refuse(url, content) if "features-" in url else None
    )
    FeatureCache(prepared.root, "a").write(Features(np.arange(2), np.zeros((2, 3), np.float32)))
    assert "the features are not stored: read-only file system" in capsys.readouterr().err and not files(prepared)


def test_a_bucket_holds_the_features_too_and_the_oldest_go(monkeypatch):
    monkeypatch.setattr(feature_cache, "MAX_FILES", 2)
    features = Features(np.array([4, 2]), np.array([[1, 2], [3, 4]], np.float32))
    for key in "abc":
        FeatureCache("memory://features-test", key).write(features)
    assert [FeatureCache("memory://features-test", key).read() is None for key in "abc"] == [True, False, False]
    stored = FeatureCache("memory://features-test", "c").read()
    assert stored.position(5).tolist() == [-1, -1, 1, -1, 0] and np.array_equal(stored.values, features.values)


def test_files_that_are_too_large_are_not_stored(prepared, monkeypatch):
    monkeypatch.setattr(feature_cache, "MAX_BYTES", 8)
    FeatureCache(prepared.root, "a").write(Features(np.arange(2), np.zeros((2, 3), np.float32)))
    assert not files(prepared)
