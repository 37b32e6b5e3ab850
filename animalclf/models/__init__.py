"""Models by name. Each carries its own preprocessing and works for any number of classes."""

from __future__ import annotations

from animalclf import config
from animalclf.errors import UserError
from animalclf.models import backbones
from animalclf.models.big_cnn import big_cnn
from animalclf.models.classifier import Classifier, freeze_all_but
from animalclf.models.vgg16 import vgg16, vgg16_pooled


def names() -> list[str]:
    """The values that `model.name` can have."""
    return ["big_cnn", "vgg16", "vgg16_pooled", *backbones.NAMES]


def check_name(name: str) -> None:
    """Raise UserError, with the nearest name, where `model.name` can not be `name`."""
    if name not in names():
        raise UserError(f"model.name: {name!r} is unknown{config.nearest(name, names())}; models: {', '.join(names())}")


def build(spec: config.Model, classes: int, *, load_weights: bool = True) -> Classifier:
    """The model that `spec` names, for `classes` classes, on the CPU, with only `spec.trainable` left to train.

    `load_weights=False` leaves pretrained weights out, for a model whose weights come from a checkpoint.
    Raises UserError for an unknown name, an input size that does not fit, unknown layers, or weights that cannot be had.
    """
    check_name(spec.name)
    if spec.name == "big_cnn":
        model = big_cnn(spec, classes)
    elif spec.name == "vgg16":
        model = vgg16(spec, classes, load_weights)
    elif spec.name == "vgg16_pooled":
        model = vgg16_pooled(spec, classes, load_weights)
    else:
        model = backbones.backbone(spec, classes, load_weights)
    freeze_all_but(model, spec.trainable)
    return model
