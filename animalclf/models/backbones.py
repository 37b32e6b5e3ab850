"""Every classifier of torchvision as a base, with a linear head: `model.name` is its name there."""

from __future__ import annotations

import contextlib
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from animalclf import architectures, config
from animalclf.errors import UserError
from animalclf.models import weights
from animalclf.models.classifier import Classifier
from animalclf.models.pooling import GlobalPool
from animalclf.models.registry import LIBRARIES

MIN_INPUT_SIZE = {"alexnet": 63, "inception_v3": 75}  # pixels: below it a layer has no input
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # classifiers halfway, which only ImageNet's training uses
# Layers whose names in torchvision's files are older than the present ones.
OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)


@LIBRARIES.register("torchvision")
def backbone(spec: config.Model, classes: int, load_weights: bool = True) -> Classifier:
    """torchvision's `spec.name` without its last dense layer, dropout, and a new dense layer for `classes`. The
    features are what that layer reads, or (`spec.pool`) the pooled last map.

    Raises UserError for an input size that the network does not take, and for a pooling of a network without maps.
    """
    pretrained = architectures.pretrained(spec.name, spec.weights)
    network = _network(spec.name, spec.input_size)
    top, width = _top(network)
    if load_weights and spec.weights != "none":
        state = _adapt_state(weights.fetch(spec.name, spec.weights), spec)
        # The layer of the ImageNet classes is not used, so it may be missing in the file.
        unused = {key: value for key, value in network.state_dict().items() if key.startswith(f"{top}.")}
        weights.load_pretrained(network, {**state, **unused}, spec.weights)
    if spec.pool == "auto":
        dense = isinstance(network.get_submodule(top), nn.Linear)
        network.set_submodule(top, nn.Identity() if dense else nn.AdaptiveAvgPool2d(1))
    else:
        network = _with_pool(network, spec)
        width = feature_width(network, spec.input_size)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the head has the dropout of the recipe
    head = dense_layer(width, spec.dropout, classes)
    model = Classifier(network, head, pretrained.mean, pretrained.std, spec.input_size, classes)
    model.any_shape = architectures.input_step(spec.name) == 1
    return model


def dense_layer(width: int, dropout: float, classes: int) -> nn.Sequential:
    """A head of dropout and one dense layer of `width` features."""
    logits = nn.Linear(width, classes)
    nn.init.zeros_(logits.bias)
    return nn.Sequential(OrderedDict(dropout=nn.Dropout(dropout), logits=logits))


@torch.no_grad()
def feature_width(base: nn.Module, size: int) -> int:
    """The number of features that `base` computes of an image (3, size, size)."""
    training, parameter = base.training, next(base.parameters())
    features = base.eval()(torch.zeros(1, 3, size, size, device=parameter.device))
    base.train(training)
    return int(features.flatten(1).shape[1])


def _network(name: str, size: int) -> nn.Module:
    """torchvision's network with its 1,000 ImageNet classes, for images of `size` px. Raises UserError for a size that
    it does not take."""
    import torchvision  # here, because it takes seconds

    step, smallest = architectures.input_step(name), MIN_INPUT_SIZE.get(name, 1)
    if size < smallest:
        raise UserError(f"model.input_size: {size} is too small for {name}; at least {smallest}")
    if size % step:
        raise UserError(
            f"model.input_size: {name} takes squares of a multiple of {step} px, not {size}; "
            f"set {max(1, round(size / step)) * step}"
        )
    settings: dict[str, Any] = {}
    if name.startswith("vit_"):
        settings["image_size"] = size
    elif name == "maxvit_t":
        settings["input_size"] = (size, size)
    elif name in ("googlenet", "inception_v3"):  # their own scaling of the pixels, as with ImageNet weights
        settings |= {"aux_logits": False, "transform_input": True, "init_weights": True}
    with _WidthsOnCpu() if name.startswith("regnet") else contextlib.nullcontext():
        return torchvision.models.get_model(name, weights=None, **settings)


class _WidthsOnCpu(TorchFunctionMode):
    """Makes the tensors that RegNet computes its widths and depths from on the CPU also where a network is built on the
    meta device, which has no values."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        device = {"device": "cpu"} if func in (torch.arange, torch.tensor) else {}
        return func(*args, **(kwargs or {}) | device)


def _top(network: nn.Module) -> tuple[str, int]:
    """The name of the layer that computes the logits, and the number of its inputs: the last dense layer. SqueezeNet
    has none: its classifier is a convolution and mean pooling."""
    dense = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if dense:
        return dense[-1][0], dense[-1][1].in_features
    convolutions = [layer for layer in network.get_submodule("classifier").modules() if isinstance(layer, nn.Conv2d)]
    return "classifier", convolutions[0].in_channels


def _adapt_state(state: dict[str, torch.Tensor], spec: config.Model) -> dict[str, torch.Tensor]:
    """The tensors of a file in the present names, without auxiliary classifiers, and a ViT's table of positions
    interpolated to the input size (Dosovitskiy et al. 2021, section 3.2)."""
    adapted = {}
    for name, value in state.items():
        for pattern, replacement in OLD_NAMES:
            name = pattern.sub(replacement, name)
        if not name.startswith(AUXILIARY):
            adapted[name] = value
    if spec.name.startswith("vit_") and "encoder.pos_embedding" in adapted:
        from torchvision.models.vision_transformer import interpolate_embeddings

        patch = architectures.input_step(spec.name)
        with contextlib.suppress(ValueError):  # no table of a square: the check of the shapes refuses it
            adapted = dict(interpolate_embeddings(spec.input_size, patch, OrderedDict(adapted)))
    return adapted


def _with_pool(network: nn.Module, spec: config.Model) -> nn.Module:
    """`network` up to its last feature map, pooled as `spec.pool`. Raises UserError for a network without one."""
    top = next(name for name in ("fc", "classifier", "head", "heads") if hasattr(network, name))
    if top == "heads":
        raise UserError(f"model.pool={spec.pool}: {spec.name} has tokens and no feature map; set model.pool=auto")
    if hasattr(network, "avgpool"):
        network.avgpool = GlobalPool(spec.pool)
        network.set_submodule(top, nn.Identity())
        return network
    if spec.name.startswith(("squeezenet", "maxvit")):
        network.set_submodule(top, GlobalPool(spec.pool))
        return network
    layers = OrderedDict((name, layer) for name, layer in network.named_children() if name != top)
    if spec.name.startswith("densenet"):
        layers["relu"] = nn.ReLU()
    return nn.Sequential(OrderedDict(**layers, pooling=GlobalPool(spec.pool)))
