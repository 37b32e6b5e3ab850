"""Classification networks of torchvision as a base, with a linear head: networks whose last layer is dense and is
called `fc` or stands at the end of a `classifier`."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from animalclf import config
from animalclf.errors import UserError
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
    """torchvision's `spec.name` without its last dense layer, dropout, and a new dense layer for `classes`. Raises
    UserError for an unknown network, and for one without such a layer."""
    import torchvision  # here, because it takes seconds

    try:
        network = torchvision.models.get_model(spec.name, weights=None)
    except ValueError as error:
        raise UserError(f"model.name: {spec.name} cannot be a backbone: {str(error).lower()} of torchvision") from error
    last, layer = _last_layer(network, spec.name)
    if load_weights and spec.weights != "none":
        state = weights.fetch(spec.name, spec.weights)
        # The layer of the ImageNet classes is not used, so it may be missing in the file.
        unused = {key: value for key, value in network.state_dict().items() if key.startswith(f"{last}.")}
        weights.load_pretrained(network, {**state, **unused}, spec.weights)
    network.set_submodule(last, nn.Identity())
    for module in network.classifier if last != "fc" else ():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the head has the dropout of the recipe
    logits = nn.Linear(layer.in_features, classes)
    nn.init.zeros_(logits.bias)
    head = nn.Sequential(OrderedDict(dropout=nn.Dropout(spec.dropout), logits=logits))
    model = Classifier(network, head, IMAGENET_MEAN, IMAGENET_STD, spec.input_size, classes)
    model.any_shape = True
    return model


def _last_layer(network: nn.Module, architecture: str) -> tuple[str, nn.Linear]:
    """The dense layer that makes the logits, with its name."""
    classifier = getattr(network, "classifier", None)
    name = f"classifier.{len(classifier) - 1}" if isinstance(classifier, nn.Sequential) else "fc"
    try:
        layer = network.get_submodule(name)
    except AttributeError:
        layer = None
    if not isinstance(layer, nn.Linear):
        raise UserError(
            f"model.name: {architecture} cannot be a backbone: its last layer is not a dense layer called `fc`, or at "
            "the end of `classifier`; register a function for it in animalclf/models/"
        )
    return name, layer
