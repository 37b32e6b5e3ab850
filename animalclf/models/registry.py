"""Models by name: `model.name` selects one. To add a model, register a function in a new module of this package."""

from __future__ import annotations

from collections.abc import Callable

from animalclf import architectures, config
from animalclf.errors import UserError
from animalclf.models.classifier import Classifier, freeze_all_but
from animalclf.utils.registry import Registry, nearest

# (model settings, number of classes, whether to load `model.weights`) -> a model on the CPU, all of whose layers train.
Builder = Callable[[config.Model, int, bool], Classifier]
MODELS: Registry[Builder] = Registry("model", key="model.name", package="animalclf.models", in_workers=True)
LIBRARIES: Registry[Builder] = Registry("library of networks", package="animalclf.models", in_workers=True)
"""Builders of any network of a library by its name there: torchvision, timm."""


def builder(name: str) -> Builder:
    """What builds the model `name`: a registered model, a classifier of torchvision, or `timm:` and a network of timm.
    Raises UserError with the nearest name for an unknown one."""
    if name in MODELS:
        return MODELS.get(name)
    if name.startswith(architectures.TIMM):
        return LIBRARIES.get("timm")
    if name in architectures.torchvision_names():
        return LIBRARIES.get("torchvision")
    names = [*MODELS.names(), *architectures.torchvision_names()]
    raise UserError(
        f"model.name: {name!r} is unknown{nearest(name, names)}; there are {', '.join(MODELS.names())}, every "
        f"classifier of torchvision (such as resnet50), and {architectures.TIMM}NAME for every network of timm"
    )


def build(spec: config.Model, classes: int, *, load_weights: bool = True, keep_shape: bool = False) -> Classifier:
    """The model `spec.name` for `classes` classes, on the CPU; only the layers of `spec.trainable` train.

    `load_weights=False` does not load pretrained weights, for a model that gets them from a checkpoint. `keep_shape`:
    the model computes on the shape of each image (data.resize=keep). Raises UserError for an unknown name, an input
    size that does not fit, unknown layers, weights that cannot be loaded, and a network that needs squares with
    `keep_shape`.
    """
    model = builder(spec.name)(spec, classes, load_weights)
    freeze_all_but(model, spec.trainable)
    if keep_shape and not (model.any_shape and model.frozen_features):
        remedy = "set model.trainable=head" if model.any_shape else "prepare them with --set data.resize=squash"
        raise UserError(f"data.resize=keep: {spec.name} cannot compute on images of different shapes; {remedy}")
    model.keep_shape = keep_shape
    return model
