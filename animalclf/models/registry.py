"""Models by name: `model.name` selects one. To add a model, register a function in a new module of this package."""

from __future__ import annotations

from collections.abc import Callable

from animalclf import config
from animalclf.models.classifier import Classifier, freeze_all_but
from animalclf.utils.registry import Registry

# (model settings, number of classes, whether to load `model.weights`) -> a model on the CPU, all of whose layers train.
Builder = Callable[[config.Model, int, bool], Classifier]
MODELS: Registry[Builder] = Registry("model", key="model.name", package="animalclf.models")


def build(spec: config.Model, classes: int, *, load_weights: bool = True) -> Classifier:
    """The model `spec.name` for `classes` classes, on the CPU; only the layers of `spec.trainable` train.

    `load_weights=False` does not load pretrained weights, for a model that gets them from a checkpoint. Raises
    UserError for an unknown name, an input size that does not fit, unknown layers, or weights that cannot be loaded.
    """
    model = MODELS.get(spec.name)(spec, classes, load_weights)
    freeze_all_but(model, spec.trainable)
    return model
