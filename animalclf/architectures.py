"""Networks of torchvision by name: pretrained weights, and how these were trained to see images.

Stands below config, whose recipe families read it. torchvision, whose import takes seconds, is imported at the first
lookup.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from animalclf.errors import UserError
from animalclf.utils.console import show_line
from animalclf.utils.registry import nearest

OWN = ("big_cnn", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "vgg16", "vgg16_pooled")
"""Models of this package, by name: the modules that register them import PyTorch, which takes seconds."""
TIMM = "timm:"
"""Prefix of the names of timm's networks."""
ENTRY = re.compile(r"IMAGENET1K_\w+")
"""Names of torchvision's entries of pretrained weights."""


@dataclass(frozen=True)
class Pretrained:
    """Pretrained weights of a network of torchvision."""

    entry: str
    """Their name in torchvision: IMAGENET1K_V2."""
    url: str
    input_size: int
    """Side in pixels of the squares that they were trained for."""
    mean: tuple[float, float, float]
    """Of pixels in 0..1, RGB; so is `std`."""
    std: tuple[float, float, float]
    licence: str
    """Empty, or a sentence about a licence that restricts their use."""


@cache
def torchvision_names() -> list[str]:
    """The names of torchvision's classifiers."""
    import torchvision

    return list(torchvision.models.list_models(module=torchvision.models))


@cache
def pretrained(network: str, weights: str = "imagenet") -> Pretrained:
    """The entry `weights` of a network's pretrained weights, or torchvision's default if that is the name of none. Of
    VGG16 there are the original Oxford weights only, as in Keras and the reference notebook, because its preprocessing
    is theirs.

    Raises UserError for a network without pretrained weights, and for an unknown entry, with all entries.
    """
    import torchvision

    name = "vgg16" if network == "vgg16_pooled" else network
    try:
        entries = torchvision.models.get_model_weights(name).__members__
    except ValueError as error:
        raise UserError(
            f"model.weights: there are no pretrained weights for {network} to download; use none"
        ) from error
    if name == "vgg16":
        entries = {"DEFAULT": entries["IMAGENET1K_FEATURES"], "IMAGENET1K_FEATURES": entries["IMAGENET1K_FEATURES"]}
    names = [entry for entry in entries if entry != "DEFAULT"]
    if ENTRY.fullmatch(weights) and weights not in names:
        raise UserError(
            f"model.weights: {network} has no {weights!r}{nearest(weights, names)}; it has {', '.join(names)}"
        )
    entry = entries[weights if weights in names else "DEFAULT"]
    transform, licence = entry.transforms(), ""
    if "license" in entry.meta:
        licence = (
            f"{network}: the weights {entry.name} are licensed for non-commercial use only (SWAG, CC BY-NC 4.0: "
            f"{entry.meta['license']})"
        )
    mean, std = tuple(transform.mean), tuple(transform.std)
    return Pretrained(entry.name, entry.url, transform.crop_size[0], mean, std, licence)


def input_step(network: str) -> int:
    """The pixels that the side of an input must be a multiple of; 1 if the network takes images of any shape. Position
    tables (ViT) and windows (MaxViT) need squares."""
    if network.startswith("vit_"):
        return int(network.rpartition("_")[2])  # the patch: vit_b_16
    return 224 if network == "maxvit_t" else 1  # five halvings and windows of 7


def timm_config(name: str) -> Any:
    """timm's description of the network `name` (a timm PretrainedCfg): input_size, mean, std, classifier, license.
    Raises UserError if timm is not installed, and for an unknown name, with the nearest."""
    try:
        import timm
    except ImportError as error:
        raise UserError(
            f"model.name: {TIMM}{name}: timm is not installed on this node; install it with: pip install "
            "'animalclf[timm]'"
        ) from error
    if not timm.is_model(name):
        raise UserError(f"model.name: {TIMM}{name} is unknown{nearest(name, timm.list_models())}")
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*"))
        raise UserError(f"model.name: {TIMM}{name}: timm has no such weights; it has {tags}") from error


def timm_network(name: str, pretrained: bool = False, **settings: Any) -> Any:
    """timm's network `name` without its classifier, an nn.Module. Raises UserError for weights that cannot be
    downloaded, and for settings that the network does not take."""
    import timm

    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **settings)
    except (TypeError, AssertionError, ValueError) as error:
        given = ", ".join(f"{key}={value}" for key, value in settings.items()) or "its defaults"
        raise UserError(f"model.name: {TIMM}{name}: timm does not build it with {given} ({error})") from error
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"model.weights: the weights of {TIMM}{name} could not be downloaded ({error}). Name a file of them with "
            "--set model.weights=PATH, or train without them with --set model.weights=none"
        ) from error


def download_timm(network: str) -> None:
    """Download the weights of `timm:NAME` into the cache of the Hugging Face Hub, unless they are there; before that,
    print their licence. Raises UserError as `timm_config` and `timm_network`."""
    name = network.removeprefix(TIMM)
    licence = timm_config(name).license
    if licence:
        show_line(f"{network}: the licence of its weights is {licence}")
    timm_network(name, pretrained=True)
