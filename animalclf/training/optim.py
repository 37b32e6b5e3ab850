"""Optimizer, learning rate and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from animalclf.config import Optim


def make_optimizer(parameters: Iterable[nn.Parameter], spec: Optim) -> torch.optim.Optimizer:
    """An optimizer over the trainable ones of `parameters`. Vectors (biases, norm scales) are not decayed.

    Adam's constants are Keras's: betas (0.9, 0.999), eps 1e-7 by default.
    """
    trainable = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if spec.name == "sgd":
        return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, nesterov=spec.momentum > 0)
    kind = torch.optim.AdamW if spec.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=spec.lr, eps=spec.eps, fused=True)


def learning_rate(spec: Optim, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate of optimizer step `step` (counted from 0 over the whole run): a linear warm-up, then constant or a cosine to zero."""
    warmup = spec.warmup_epochs * steps_per_epoch
    if step < warmup:
        return spec.lr * (step + 1) / (warmup + 1)
    if spec.schedule == "constant":
        return spec.lr
    progress = (step - warmup) / max(1.0, steps_per_epoch * epochs - warmup)
    return spec.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class WeightAverage:
    """Exponential moving average of a module's state (parameters and BatchNorm statistics). The decay warms up with the number of
    updates, min(decay, (1 + n) / (10 + n)), so that short runs are not stuck at the initial weights (as TensorFlow's averages do)."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.state = _copy(module)
        self.trained: dict[str, torch.Tensor] = {}  # the module's own state while the average stands in its place

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)

    def apply(self, module: nn.Module) -> None:
        """Put the averaged state into `module`, for evaluation, until `restore`."""
        self.trained = _copy(module)
        module.load_state_dict(self.state)

    def restore(self, module: nn.Module) -> None:
        module.load_state_dict(self.trained)


def _copy(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
