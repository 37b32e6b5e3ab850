"""Fine-tuning of a pretrained base: learning rates by depth, a fitted head to start from, L2-SP, gradual unfreezing,
and the average of tuned and initial weights. Each is off by default; the keys in config/schema/ name its paper."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import nn

from animalclf.config import Config, Optim
from animalclf.errors import UserError
from animalclf.models.classifier import Classifier

Weights = dict[str, torch.Tensor]  # by the parameter's name in the model


def blocks(model: Classifier) -> dict[str, int]:
    """The number of blocks of the base above each trainable parameter of it, by the parameter's name: 0 in the last
    block. A block is all layers whose names begin alike up to the first number (block5, layer4, features.7,
    encoder_layer_11), or else a layer."""
    block_of = {
        name: _block(name) for name, parameter in model.named_parameters() if parameter.requires_grad and _in_base(name)
    }
    order = list(dict.fromkeys(block_of.values()))
    return {name: len(order) - 1 - order.index(block) for name, block in block_of.items()}


def lr_factors(model: Classifier, optim: Optim) -> dict[nn.Parameter, float]:
    """The factor of the learning rate of each trainable parameter: 1 in the head, `optim.base_lr_factor` in the last
    block of the base, and `optim.layer_decay` times that of the block above in the others."""
    depth = blocks(model)
    return {
        parameter: optim.base_lr_factor * optim.layer_decay ** depth[name] if name in depth else 1.0
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def initial_weights(model: Classifier) -> Weights:
    """A copy of the trainable parameters."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def gradient_hooks(model: Classifier, config: Config, start: Weights | None, epoch: int) -> list[Callable[[], None]]:
    """The hooks that change the gradients of an epoch's steps before the optimizer reads them."""
    strength, every = config.optim.l2_sp, config.train.unfreeze_every
    hooks = [l2_sp(model, start, strength)] if strength and start else []
    return hooks + ([hold_blocks(model, epoch, every)] if every else [])


def l2_sp(model: Classifier, start: Weights, strength: float) -> Callable[[], None]:
    """A hook that adds the gradient of strength / 2 |w - start|^2 over the base's weights, after the backward pass."""
    weights = [(weight, start[name]) for name, weight in model.named_parameters() if name in start and _in_base(name)]

    @torch.no_grad()
    def add() -> None:
        for weight, initial in weights:
            if weight.grad is not None:
                weight.grad.add_(weight - initial, alpha=strength)

    return add


def hold_blocks(model: Classifier, epoch: int, every: int) -> Callable[[], None]:
    """A hook that drops the gradients of the blocks that are not unfrozen yet: in epoch e, from 0, the head and the
    last e // every blocks train."""
    depth = blocks(model)
    held = [weight for name, weight in model.named_parameters() if depth.get(name, -1) >= epoch // every]

    def drop() -> None:
        for weight in held:
            weight.grad = None  # the optimizer skips it

    return drop


@torch.no_grad()
def average_with(model: Classifier, start: Mapping[str, torch.Tensor], fraction: float) -> None:
    """Replace the weights by `fraction` of the initial ones plus 1 - `fraction` of the present ones."""
    for name, weight in model.named_parameters():
        if name in start:
            weight.lerp_(start[name], fraction)


def check(config: Config, model: Classifier) -> None:
    """Raise UserError for settings of fine-tuning that do not fit one another or the model."""
    optim, train = config.optim, config.train
    tuning = {
        "optim.base_lr_factor": optim.base_lr_factor != 1,
        "optim.layer_decay": optim.layer_decay != 1,
        "optim.l2_sp": optim.l2_sp > 0,
        "train.unfreeze_every": train.unfreeze_every > 0,
        "optim.wise_ft": optim.wise_ft > 0,
        "train.head_start=fitted": train.head_start == "fitted",
        "train.cached_views": train.cached_views > 0,
    }
    active_keys = [key for key, is_active in tuning.items() if is_active]
    if active_keys and model.frozen_features:
        raise UserError(
            f"{', '.join(active_keys)}: no layer of the base trains; name layers with model.trainable, or leave these "
            "keys out"
        )
    if train.cached_views and not model.frozen_layers:
        raise UserError(
            f"train.cached_views: {config.model.name} has no frozen layers below those that train, or is no plain "
            "sequence of layers; use vgg16_pooled or an efficientnet_lite and train its last blocks (model.trainable), "
            "or set train.cached_views=0"
        )
    if optim.wise_ft and train.head_start != "fitted":
        raise UserError("optim.wise_ft: needs an initial head to average with; set train.head_start=fitted")
    if train.head_start == "fitted" and (not hasattr(model.head, "logits") or len([*model.head.parameters()]) != 2):
        raise UserError(
            f"train.head_start=fitted: the head of {config.model.name} is not one dense layer on the features; use "
            "another model.name (such as vgg16_pooled), or set train.head_start=random"
        )


def _block(name: str) -> str:
    match = re.match(r".*?\d+", name)
    return match[0] if match else name.rpartition(".")[0] or name


def _in_base(name: str) -> bool:
    return name.startswith("base.")
