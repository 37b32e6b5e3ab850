"""Penultimate features: what the last dense layer, or the fitted heads, take, by every way to ask for them."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax
from torch import nn

import animalclf
from animalclf.data.loader import load_images
from animalclf.errors import UserError
from animalclf.features.heads import FittedHead
from animalclf.inference.features import image_features
from animalclf.models.classifier import features_and_logits
from animalclf.models.fitted_heads import module_of
from animalclf.training import checkpoint


def last_layer(run):
    """Weight (C, F) and bias (C,) of the run's last dense layer."""
    model, _ = checkpoint.load_model(run)
    layer = model.head.get_submodule("logits")
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def test_the_last_layer_makes_the_probabilities_of_the_features(untrained_run, tiny_set):
    pixels = [cv2.resize(view, (90, 70)) for view in load_images(tiny_set).views(tiny_set.rows("val"))]
    model, (weight, bias) = animalclf.load(untrained_run), last_layer(untrained_run)
    features = model.features(pixels)
    assert features.dtype == np.float32 and features.shape == (len(pixels), weight.shape[1]) and features.std() > 0
    np.testing.assert_allclose(softmax(features @ weight.T + bias, axis=1), model.predict_proba(pixels), atol=1e-4)
    assert model.features([]).shape == (0, weight.shape[1])


def test_a_split_has_features_probabilities_and_labels_in_one_order(untrained_run, tiny_set):
    weight, bias = last_layer(untrained_run)
    for split in ("train", "val"):
        images = image_features(untrained_run, split=split)
        rows = tiny_set.manifest.iloc[tiny_set.rows(split)]
        assert images.paths == rows["path"].tolist() and images.labels == rows["label"].tolist()
        assert images.classes == tiny_set.classes and images.root == tiny_set.root and not images.unreadable
        np.testing.assert_allclose(softmax(images.features @ weight.T + bias, axis=1), images.probabilities, atol=1e-4)
    with pytest.raises(UserError, match="no images in split 'test'"):
        image_features(untrained_run, split="test")


def test_fitted_heads_and_heads_of_other_layers():
    generator = np.random.default_rng(0)
    tensors = {"weight": generator.normal(size=(2, 6)).astype(np.float32), "bias": np.zeros(2, np.float32)}
    fitted = FittedHead("lda", {}, 1.0, tensors, np.zeros((4, 2)), 0.0)
    maps = torch.tensor(generator.normal(size=(4, 3, 2)).astype(np.float32))
    heads = module_of([fitted], np.arange(2), 2)
    features, logits = features_and_logits(heads, maps)
    assert torch.equal(features, maps.flatten(1)) and torch.equal(logits, heads(maps))
    without_dense = nn.Sequential(nn.Conv1d(3, 2, 2), nn.Flatten())
    features, logits = features_and_logits(without_dense, maps)
    assert torch.equal(features, maps.flatten(1)) and torch.equal(logits, without_dense(maps))


@pytest.mark.ray
def test_a_folder_has_the_features_that_the_loaded_model_gives(untrained_run, tmp_path, ray_local):
    generator = np.random.default_rng(0)
    for name in ("b/2.png", "a/1.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(generator.integers(0, 255, (70, 90, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = image_features(untrained_run, str(tmp_path))
    assert sorted(images.paths) == ["a/1.png", "b/2.png"] and list(images.unreadable or ()) == ["broken.png"]
    expected = animalclf.load(untrained_run).features([tmp_path / path for path in images.paths])
    np.testing.assert_allclose(images.features, expected, atol=1e-4)
    assert images.labels is None and images.probabilities.shape == (2, 3)
