"""Optimizers by name (`optim.name` selects one), and averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from animalclf.config import Optim
from animalclf.utils.registry import Registry

Groups = list[dict[str, Any]]  # parameter groups of torch.optim, each with its weight decay
OPTIMIZERS: Registry[Callable[[Groups, Optim], torch.optim.Optimizer]] = Registry("optimizer", key="optim.name")


@OPTIMIZERS.register("adam")
def adam(groups: Groups, spec: Optim) -> torch.optim.Optimizer:
    """Adam with Keras's constants: betas (0.9, 0.999), eps 1e-7 by default."""
    return torch.optim.Adam(groups, lr=spec.lr, eps=spec.eps, fused=True)


@OPTIMIZERS.register("adamw")
def adamw(groups: Groups, spec: Optim) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov, Hutter 2019)."""
    return torch.optim.AdamW(groups, lr=spec.lr, eps=spec.eps, fused=True)


@OPTIMIZERS.register("sgd")
def sgd(groups: Groups, spec: Optim) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum."""
    return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, nesterov=spec.momentum > 0)


def make_optimizer(parameters: Iterable[nn.Parameter], spec: Optim) -> torch.optim.Optimizer:
    """The optimizer `spec.name` over the trainable ones of `parameters`. Vectors (biases, norm scales) are not
    decayed."""
    trainable = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMIZERS.get(spec.name)([group for group in groups if group["params"]], spec)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step for all groups. Steps recorded as CUDA graphs read it from a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def portable_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state without what recorded steps add to its settings, so that any device can resume from it."""
    state = optimizer.state_dict()
    groups = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    return {
        **state,
        "param_groups": [group | {"capturable": False} if "capturable" in group else group for group in groups],
    }


class WeightAverage:
    """Exponential moving average of a module's state (parameters and BatchNorm statistics). The decay warms up with the
    number of updates, min(decay, (1 + n) / (10 + n)), so that short runs are not stuck at the initial weights (as
    TensorFlow's averages do)."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.state = _copy(module)
        self.trained: dict[str, torch.Tensor] = {}  # the module's own state while the average stands in its place

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        own, trained = self.state, module.state_dict()
        moving = [name for name, value in trained.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [own[name] for name in moving], [trained[name] for name in moving], 1 - decay
        )  # a few kernels, not one a tensor
        for name in trained.keys() - set(moving):
            own[name].copy_(trained[name])

    def apply(self, module: nn.Module) -> None:
        """Put the averaged state into `module`, for evaluation, until `restore`."""
        self.trained = _copy(module)
        module.load_state_dict(self.state)

    def restore(self, module: nn.Module) -> None:
        module.load_state_dict(self.trained)


def _copy(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
