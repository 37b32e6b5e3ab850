"""Optimizers by name (`optim.name` selects one), the learning rate of a step, and averaged weights."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict, TypeVar

import torch
from torch import nn

from animalclf.config import Optim
from animalclf.lr_schedules import LR_SCHEDULES
from animalclf.utils.registry import Registry

OptimizerState = dict[str, Any]  # as torch.optim.Optimizer.state_dict returns it
ParameterGroups = list[dict[str, Any]]  # of torch.optim: "params", "weight_decay"; "lr_factor"
MakeOptimizer = Callable[[ParameterGroups, Optim], torch.optim.Optimizer]
OPTIMIZERS: Registry[MakeOptimizer] = Registry("optimizer", key="optim.name", in_workers=True)
OptimizerClass = TypeVar("OptimizerClass", bound=type[torch.optim.Optimizer])


@functools.cache
def eager(optimizer: OptimizerClass) -> OptimizerClass:
    """A subclass of `optimizer` that does not import PyTorch's compiler (torch._dynamo), which takes as long as PyTorch
    itself. PyTorch wraps these methods to keep them out of compiled code, and only compiled models need that; they are
    taken without their wrappers. `step` loses the wrapper that turns gradients off, so it gets another."""
    names = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    methods["step"] = torch.no_grad()(inspect.unwrap(optimizer.step))
    return type(optimizer.__name__, (optimizer,), methods)  # type: ignore[return-value]


@OPTIMIZERS.register("adam")
def adam(groups: ParameterGroups, spec: Optim) -> torch.optim.Optimizer:
    """Adam with Keras's constants: betas (0.9, 0.999), eps 1e-7 by default."""
    return eager(torch.optim.Adam)(groups, lr=spec.lr, eps=spec.eps, fused=True)


@OPTIMIZERS.register("adamw")
def adamw(groups: ParameterGroups, spec: Optim) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov, Hutter 2019)."""
    return eager(torch.optim.AdamW)(groups, lr=spec.lr, eps=spec.eps, fused=True)


@OPTIMIZERS.register("sgd")
def sgd(groups: ParameterGroups, spec: Optim) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum."""
    return eager(torch.optim.SGD)(groups, lr=spec.lr, momentum=spec.momentum, nesterov=spec.momentum > 0)


def make_optimizer(
    parameters: Iterable[nn.Parameter], spec: Optim, factors: Mapping[nn.Parameter, float] | None = None
) -> torch.optim.Optimizer:
    """The optimizer `spec.name` of the trainable `parameters`. Vectors (biases, norm scales) have no weight decay.
    `factors`: of the learning rate, by parameter; 1 if it is not in there."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    groups: ParameterGroups = []
    factor_of = {parameter: (factors or {}).get(parameter, 1.0) for parameter in trainable}
    for factor in sorted(set(factor_of.values()), reverse=True):
        members = [parameter for parameter in trainable if factor_of[parameter] == factor]
        matrices = [parameter for parameter in members if parameter.ndim > 1]
        vectors = [parameter for parameter in members if parameter.ndim <= 1]
        groups.append({"params": matrices, "weight_decay": spec.weight_decay, "lr_factor": factor})
        groups.append({"params": vectors, "weight_decay": 0.0, "lr_factor": factor})
    return OPTIMIZERS.get(spec.name)([group for group in groups if group["params"]], spec)


def learning_rate(spec: Optim, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate of optimizer step `step`, counted from 0 over the whole run."""
    warmup = spec.warmup_epochs * steps_per_epoch
    if step < warmup:
        return spec.lr * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, steps_per_epoch * epochs - warmup)
    return spec.lr * LR_SCHEDULES.get(spec.schedule).factor(min(1.0, progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step: `lr` times the factor of each group. Steps recorded as CUDA graphs
    read it from a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr * group.get("lr_factor", 1.0))
        else:
            group["lr"] = lr * group.get("lr_factor", 1.0)  # none in checkpoints of older versions


def portable_state(optimizer: torch.optim.Optimizer) -> OptimizerState:
    """The optimizer's state without the settings that CUDA graphs need, so that any device can resume from it."""
    state = optimizer.state_dict()
    groups = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    return {
        **state,
        "param_groups": [group | {"capturable": False} if "capturable" in group else group for group in groups],
    }


class AverageState(TypedDict):
    """A WeightAverage in a checkpoint."""

    state: dict[str, torch.Tensor]
    updates: int


class WeightAverage:
    """Exponential moving average of a module's state (parameters and BatchNorm statistics). The decay warms up with the
    number of updates n, min(decay, (1 + n) / (10 + n)), as TensorFlow's does, so that short runs forget their initial
    weights."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.state = _clone_state(module)
        self.trained: dict[str, torch.Tensor] = {}  # the module's own state, from `apply` to `restore`

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        average, trained = self.state, module.state_dict()
        floating = [name for name, value in trained.items() if value.is_floating_point()]
        # One call for all tensors: a few kernels instead of one for each.
        torch._foreach_lerp_([average[name] for name in floating], [trained[name] for name in floating], 1 - decay)
        for name in trained.keys() - set(floating):
            average[name].copy_(trained[name])

    def apply(self, module: nn.Module) -> None:
        """Load the averaged state into `module`, for evaluation, until `restore`."""
        self.trained = _clone_state(module)
        module.load_state_dict(self.state)

    def restore(self, module: nn.Module) -> None:
        """Load the module's own state again."""
        module.load_state_dict(self.trained)


def _clone_state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
