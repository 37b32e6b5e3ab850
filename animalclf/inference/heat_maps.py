"""Heat maps: the places of an image that speak for a class. Plain PyTorch.

A map is the positive part of activation times gradient, summed over the channels of the network's last feature map. A
network that pools this map sees features at any place alike, so that the gradient's mean over the places is used:
Grad-CAM (Selvaraju and others 2017), which for a linear head on the map's mean is CAM. A network that flattens it sees
where a feature is, so that each place has its own gradient: HiResCAM (Draelos and Carin 2020, arXiv 2011.08891). The
gradient is that of the log-odds of the class, so that what speaks for all classes alike does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate

from animalclf.errors import UserError
from animalclf.models.classifier import Classifier, content_boxes
from animalclf.training import loop

Hook = Callable[[nn.Module, Any, Any], torch.Tensor | None]


@dataclass(frozen=True, eq=False)
class FeatureLayer:
    """A layer whose output for one image is maps, with the axis of their channels: 1 or 3."""

    module: nn.Module
    channels: int


def feature_layer(model: Classifier, side: int) -> FeatureLayer:
    """The last layer with maps that the logits depend on, found on an image of noise (1, side, side, 3).

    Maximum pooling is left out: the map before it is finer and has the same maxima. Raises UserError for a network
    whose features are tokens: activation times gradient does not show from where a token has its information.
    """
    layers: list[FeatureLayer | None] = []
    outputs: list[torch.Tensor] = []

    def record(module: nn.Module, _: Any, output: Any) -> torch.Tensor | None:
        if not isinstance(output, torch.Tensor) or not output.requires_grad or output.shape[0] != 1:
            return None
        match tuple(output.shape):
            case (_, _, height, width) if height == width > 1:
                layers.append(FeatureLayer(module, 1))
            case (_, height, width, _) if height == width > 1:
                layers.append(FeatureLayer(module, 3))
            case (_, tokens, _) if tokens > 1:
                layers.append(None)
            case _:
                return None
        outputs.append(output)
        return output.clone()  # the next layer may change it in place

    noise = torch.randint(256, (1, side, side, 3), generator=torch.Generator().manual_seed(0)).float()
    with torch.enable_grad(), ExitStack() as hooks:
        for module in list(model.base.modules())[1:]:
            if not isinstance(module, nn.MaxPool2d):
                hooks.enter_context(_hooked(module, record))
        score = _log_odds(model(noise.to(model.mean.device).requires_grad_()), 0)
        gradients = torch.autograd.grad(score, outputs, allow_unused=True) if outputs else ()
    used = [layer for layer, gradient in zip(layers, gradients, strict=True) if gradient is not None]
    if not used or used[-1] is None:
        raise UserError(
            "has no map of features at its end, so there are no heat maps of it; convolutional networks, Swin and "
            "MaxViT have one"
        )
    return used[-1]


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """Of an `image` (1, S, S, 3): the `activations` of a layer, at which the graph begins, and the `logits` (1, C)."""

    image: torch.Tensor
    layer: FeatureLayer
    activations: torch.Tensor
    logits: torch.Tensor


def forward_pass(model: Classifier, layer: FeatureLayer, image: torch.Tensor, bf16: bool = False) -> ForwardPass:
    """One computation of the logits, for the maps of any number of classes. The layers before `layer` compute as in
    prediction."""
    activations: list[torch.Tensor] = []

    def cut(module: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        torch.set_grad_enabled(True)
        activations.append(output.detach().requires_grad_())
        return activations[-1].clone()

    with torch.no_grad(), loop.autocast(image.device, bf16), _hooked(layer.module, cut):
        logits = model(image)
    return ForwardPass(image, layer, activations[-1], logits)


def heat_map(model: Classifier, forward: ForwardPass, number: int) -> np.ndarray:
    """Float32 (S, S), 0 or more: how much each place of the image speaks for class `number`. 0 on the padding of a
    canvas, and everywhere if nothing speaks for the class."""
    image, channels, activations = forward.image, forward.layer.channels, forward.activations
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(_log_odds(forward.logits, number), activations, retain_graph=True)
    if model.any_shape:
        gradient = gradient.mean([axis for axis in (1, 2, 3) if axis != channels], keepdim=True)
    evidence = (gradient * activations.detach()).sum(channels)[0].float().clamp_min(0)
    side = image.shape[1]
    top, bottom, left, right = content_boxes(image)[0].tolist() if model.keep_shape else (0, side, 0, side)
    result = np.zeros((side, side), np.float32)
    fitted = interpolate(evidence[None, None], (bottom - top, right - left), mode="bicubic").clamp_min(0)
    result[top:bottom, left:right] = fitted[0, 0].cpu().numpy()
    return result


def _log_odds(logits: torch.Tensor, number: int) -> torch.Tensor:
    """Of class `number`, from logits (1, C). Its gradient does not vanish where the class is certain."""
    others = torch.arange(logits.shape[1], device=logits.device) != number
    return logits[0, number] - logits[0, others].logsumexp(0)


@contextmanager
def _hooked(module: nn.Module, hook: Hook) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
