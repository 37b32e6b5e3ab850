"""Recipe families: `features:BACKBONE` and `tuned:BACKBONE` are recipes with another backbone, whose weights and image
size they fill in."""

from __future__ import annotations

import math

from animalclf import architectures
from animalclf.errors import UserError
from animalclf.utils.canvas import SHORT_SIDE, STEP
from animalclf.utils.registry import nearest

DEFAULT_RECIPE = "quick"
FAMILIES = {"features": DEFAULT_RECIPE, "tuned": "vgg16_tuned"}
"""The recipe that each family changes."""
# Sides in pixels of the squares that the weights were trained for.
LITE_SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
CROP_RATIO = 7 / 8  # a network trained on crops of 224 px sees objects at the size of training at 256
LAYER_DECAY = 0.75
STORED_FOR_CROPS = 9 / 8  # as 252 px for 224: detail for zooming in


def split_family(recipe: str) -> tuple[str, str]:
    """The family and the backbone of `features:resnet50`; two empty names for another recipe. Raises UserError for an
    unknown family and a missing backbone."""
    family, colon, backbone = recipe.partition(":")
    if not colon or "/" in recipe:
        return "", ""
    if family not in FAMILIES or not backbone:
        families = ", ".join(f"{name}:BACKBONE" for name in FAMILIES)
        raise UserError(f"unknown recipe {recipe!r}{nearest(family, FAMILIES)}; families: {families}")
    return family, backbone


def family_name(name: str, model: str) -> str:
    """`name` of a configuration of the network `model`, with the recipe as it is given to --recipe: earlier versions
    wrote `features-resnet50` for `features:resnet50`."""
    backbone = "vgg16" if model == "vgg16_pooled" else model
    for family in FAMILIES:
        earlier = f"{family}-{backbone.replace(':', '-')}"
        if name == earlier or name.startswith(f"{earlier} "):
            return f"{family}:{backbone}{name.removeprefix(earlier)}"
    return name


def backbone_settings(family: str, backbone: str) -> dict[str, object]:
    """What the recipe of `family` sets for `backbone`, by dotted key. Raises UserError for an unknown backbone.

    features: images of any shape at 8/7 of the size that its weights were trained for, or squares of that size if it
    needs squares. tuned: squares of that size; every layer trains, those near the image the slowest.
    """
    name = "vgg16_pooled" if backbone == "vgg16" else backbone
    size, squares = _trained_input(name)
    settings: dict[str, object] = {
        "name": f"{family}:{backbone}",
        "model.name": name,
        "model.weights": "embedded" if name in LITE_SIZES else "imagenet",
    }
    if family == "tuned":
        settings |= {"model.trainable": ["all"], "optim.layer_decay": LAYER_DECAY}
        return settings | {"data.stored_size": math.ceil(size * STORED_FOR_CROPS), "model.input_size": size}
    if squares:
        return settings | {"data.resize": "squash", "data.stored_size": size, "model.input_size": size}
    shorter = max(1, round(size / CROP_RATIO / STEP)) * STEP
    canvas = math.ceil(shorter / SHORT_SIDE / STEP) * STEP
    return settings | {"data.resize": "keep", "data.stored_size": canvas, "model.input_size": shorter}


def _trained_input(name: str) -> tuple[int, bool]:
    """The side in pixels that a backbone's weights were trained for, and whether it needs squares."""
    if name in LITE_SIZES:
        return LITE_SIZES[name], False
    if name.startswith(architectures.TIMM):
        timm_config = architectures.timm_config(name.removeprefix(architectures.TIMM))
        return timm_config.input_size[1], bool(timm_config.fixed_input_size)
    names = ["vgg16_pooled", *LITE_SIZES, *architectures.torchvision_names()]
    if name not in names:
        raise UserError(
            f"recipe: {name!r} is not a backbone{nearest(name, names)}; there is every classifier of torchvision, "
            f"{', '.join(LITE_SIZES)}, and {architectures.TIMM}NAME for every network of timm"
        )
    return architectures.pretrained(name).input_size, architectures.input_step(name) > 1
