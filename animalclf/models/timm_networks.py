"""Every network of timm as a base, with a linear head: `model.name` is `timm:` and its name there (extra `timm`)."""

from __future__ import annotations

from typing import Any

from animalclf import architectures, config
from animalclf.errors import UserError
from animalclf.models import weights
from animalclf.models.backbones import dense_layer, feature_width
from animalclf.models.classifier import Classifier
from animalclf.models.registry import LIBRARIES

POOLS = {"mean": "avg", "max": "max", "mean_max": "catavgmax"}


@LIBRARIES.register("timm")
def timm_network(spec: config.Model, classes: int, load_weights: bool = True) -> Classifier:
    """timm's network without its classifier, dropout, and a new dense layer for `classes`. Raises UserError for an
    unknown name, an input size or a pooling that the network does not take, and weights that cannot be downloaded."""
    name = spec.name.removeprefix(architectures.TIMM)
    facts = architectures.timm_config(name)
    settings: dict[str, Any] = {"img_size": spec.input_size} if facts.fixed_input_size else {}
    if spec.pool != "auto":
        if spec.pool not in POOLS:
            raise UserError(
                f"model.pool={spec.pool}: networks of timm have {', '.join(POOLS)}; set one of them, or auto"
            )
        settings["global_pool"] = POOLS[spec.pool]
    from_hub = load_weights and spec.weights != "none" and not spec.weights_file
    network = architectures.timm_network(name, pretrained=from_hub, **settings)
    if load_weights and spec.weights_file:
        state, classifier = weights.fetch(spec.name, spec.weights), facts.classifier or ()
        classifier_layers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        base_state = {
            key: value
            for key, value in state.items()
            if not key.startswith(tuple(f"{part}." for part in classifier_layers))
        }
        weights.load_pretrained(network, base_state, spec.weights)
    try:
        width = feature_width(network, spec.input_size)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"model.input_size: {spec.name} does not take squares of {spec.input_size} px ({error}); "
            f"it was trained at {facts.input_size[1]}"
        ) from error
    head = dense_layer(width, spec.dropout, classes)
    model = Classifier(network, head, facts.mean, facts.std, spec.input_size, classes)
    model.any_shape = not facts.fixed_input_size
    return model
