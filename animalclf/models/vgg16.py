"""VGG16 transfer: the reference notebook's model (flattened features, three dense layers), and a pooled one for small
sets."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import nn

from animalclf import config
from animalclf.models import weights
from animalclf.models.big_cnn import dense_head
from animalclf.models.classifier import Classifier, keras_initialise
from animalclf.models.registry import MODELS

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # width and convolutions of each block (Simonyan, Zisserman 2014)
MEAN, STD = (0.48235, 0.45882, 0.40784), (1 / 255,) * 3  # what VGG16_Weights.IMAGENET1K_FEATURES expects: Keras's preprocess_input in RGB order


@MODELS.register("vgg16")
def vgg16(spec: config.Model, classes: int, load_weights: bool = True) -> Classifier:
    """The layers of the reference notebook's transfer table: VGG16's convolutions, flatten, Dense 512, 256, dropout, 128, logits."""
    base, side = _convolutions(), spec.input_size // 32
    dense = dense_head(512 * side * side, (512, 256), spec.dropout, 128, classes)
    head = nn.Sequential(OrderedDict([("flatten", nn.Flatten()), *dense.named_children()]))
    return _initialise(Classifier(base, head, MEAN, STD, spec.input_size, classes), spec, load_weights)


@MODELS.register("vgg16_pooled")
def vgg16_pooled(spec: config.Model, classes: int, load_weights: bool = True) -> Classifier:
    """Max and mean pooling of each of the 512 maps, scaled to a common length, and one dense layer: as much as a few
    hundred images can train. The dense layer starts at zero: it is a logistic regression, and random weights add noise
    that few images do not remove."""
    base = _convolutions()
    base.add_module("pooling", PoolNormalise())
    logits = nn.Linear(1024, classes)
    head = nn.Sequential(OrderedDict(dropout=nn.Dropout(spec.dropout), logits=logits))
    model = _initialise(Classifier(base, head, MEAN, STD, spec.input_size, classes), spec, load_weights)
    nn.init.zeros_(logits.weight)
    return model


class PoolNormalise(nn.Module):
    """(N, C, H, W) to (N, 2C): global max and mean pooling, each scaled to vectors of length sqrt(C), so that a feature
    is of the order of 1."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = maps.float()
        pooled = (maps.amax((2, 3)), maps.mean((2, 3)))
        return torch.cat([nn.functional.normalize(vector, dim=1) for vector in pooled], 1) * math.sqrt(maps.shape[1])


def _convolutions() -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for number, (width, convolutions) in enumerate(BLOCKS, start=1):
        for position in range(1, convolutions + 1):
            layers[f"block{number}_conv{position}"] = nn.Conv2d(channels, width, 3, padding=1)
            layers[f"block{number}_relu{position}"] = nn.ReLU(inplace=True)
            channels = width
        layers[f"block{number}_pool"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)


def _initialise(model: Classifier, spec: config.Model, load_weights: bool) -> Classifier:
    keras_initialise(model)
    if load_weights and spec.weights != "none":
        state = weights.fetch("vgg16", spec.weights)
        convolutions = [name for name, layer in model.base.named_children() if isinstance(layer, nn.Conv2d)]
        # torchvision numbers the layers of `features`, ReLU and pooling too, as our base does; a whole network's classifier is not used.
        ours = {str(number): name for number, (name, _) in enumerate(model.base.named_children()) if name in convolutions}
        renamed = {}
        for key, value in state.items():
            number, dot, part = key.removeprefix("features.").partition(".")
            if number != "classifier":
                renamed[f"{ours.get(number, number)}{dot}{part}"] = value
        weights.load_state(model.base, renamed, f"model.weights: {spec.weights}")
    return model
