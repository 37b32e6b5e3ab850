"""Classification networks of torchvision as a base, with a linear head: those with an `fc` layer, or a `classifier` that ends
in a dense one."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from animalclf import config
from animalclf.models import weights
from animalclf.models.classifier import IMAGENET_MEAN, IMAGENET_STD, Classifier
from animalclf.models.registry import MODELS


@MODELS.register("convnext_tiny")
@MODELS.register("efficientnet_b0")
@MODELS.register("mobilenet_v3_large")
@MODELS.register("resnet18")
@MODELS.register("resnet34")
@MODELS.register("resnet50")
def backbone(spec: config.Model, classes: int, load_weights: bool = True) -> Classifier:
    """`spec.name` of torchvision without its last dense layer, dropout, and a new dense layer for `classes`."""
    import torchvision  # takes seconds: only where it is needed

    network = torchvision.models.get_model(spec.name, weights=None)
    if load_weights and spec.weights != "none":
        state = weights.fetch(spec.name, spec.weights)
        last = "fc." if hasattr(network, "fc") else f"classifier.{len(network.classifier) - 1}."
        # The ImageNet classes' own layer is not used; a file that lacks it is as good.
        own = {key: value for key, value in network.state_dict().items() if key.startswith(last)}
        weights.load_state(network, {**state, **own}, f"model.weights: {spec.weights}")
    if hasattr(network, "fc"):
        width, network.fc = network.fc.in_features, nn.Identity()
    else:
        width, network.classifier[-1] = network.classifier[-1].in_features, nn.Identity()
        for layer in network.classifier:
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0  # the head's dropout, which the recipe sets, takes its place
    logits = nn.Linear(width, classes)
    nn.init.zeros_(logits.bias)
    head = nn.Sequential(OrderedDict(dropout=nn.Dropout(spec.dropout), logits=logits))
    return Classifier(network, head, IMAGENET_MEAN, IMAGENET_STD, spec.input_size, classes)
