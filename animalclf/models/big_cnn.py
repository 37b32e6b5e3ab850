"""The reference notebook's big CNN: four pairs of unpadded 3 x 3 convolutions, each with BatchNorm and max pooling, and
four dense layers."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from animalclf import config
from animalclf.errors import UserError
from animalclf.models.classifier import Classifier, keras_initialise
from animalclf.models.pooling import refuse_pool
from animalclf.models.registry import MODELS

PAIRS = ((32, 64), (128, 256), (256, 512), (512, 1024))
MIN_INPUT_SIZE = 76  # pixels: below it the last pooling has no input


@MODELS.register("big_cnn")
def big_cnn(spec: config.Model, classes: int, load_weights: bool = True) -> Classifier:
    """The layers of the reference notebook's first table, with Glorot weights. Raises UserError for an input too small
    for four poolings, and for pretrained weights, which do not exist."""
    if spec.input_size < MIN_INPUT_SIZE:
        raise UserError(f"model.input_size: {spec.input_size} is too small for the big CNN; at least {MIN_INPUT_SIZE}")
    if spec.weights != "none":
        raise UserError(f"model.weights: {spec.weights!r}: there are no pretrained weights for the big CNN; use none")
    refuse_pool(spec)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    side, channels = spec.input_size, 3
    for number, pair in enumerate(PAIRS, start=1):
        for position, width in enumerate(pair, start=1):
            layers[f"block{number}_conv{position}"] = nn.Conv2d(channels, width, 3)
            layers[f"block{number}_relu{position}"] = nn.ReLU(inplace=True)
            channels = width
        # Keras's momentum 0.99 is PyTorch's 0.01, the weight of the new value.
        layers[f"block{number}_norm"] = nn.BatchNorm2d(channels, eps=1e-3, momentum=1 - spec.batchnorm_momentum)
        layers[f"block{number}_pool"] = nn.MaxPool2d(2)
        side = (side - 4) // 2
    layers["flatten"] = nn.Flatten()
    head = dense_head(side * side * channels, (512, 256), spec.dropout, 64, classes)
    model = Classifier(nn.Sequential(layers), head, (0, 0, 0), (1, 1, 1), spec.input_size, classes)
    keras_initialise(model)
    return model


def dense_head(inputs: int, widths: tuple[int, ...], dropout: float, last_width: int, classes: int) -> nn.Sequential:
    """The reference notebook's heads: dense ReLU layers of `widths`, dropout, one of `last_width`, and the logits."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, width in enumerate(widths):
        layers[f"dense{number}"], layers[f"relu{number}"] = nn.Linear(inputs, width), nn.ReLU(inplace=True)
        inputs = width
    layers["dropout"] = nn.Dropout(dropout)
    layers[f"dense{len(widths)}"], layers[f"relu{len(widths)}"] = nn.Linear(inputs, last_width), nn.ReLU(inplace=True)
    layers["logits"] = nn.Linear(last_width, classes)
    return nn.Sequential(layers)
