"""Fitted heads as PyTorch modules: features in, log-probabilities out. Everything fitted is in their buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from animalclf.features.heads import ABSENT, FittedHead


class FittedHeads(nn.ModuleDict):
    """Heads by their kind: features (N, F) to the mean of their log-probabilities, float32 (N, classes)."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        with torch.autocast(features.device.type, enabled=False):  # a few products of which every digit counts
            inputs = features.float().flatten(1)
            logits = [head(inputs).log_softmax(1) for head in self.values()]
            return torch.stack(logits).mean(0).log_softmax(1)


class LinearHead(nn.Module):
    """A dense layer and a temperature."""

    weight: torch.Tensor
    bias: torch.Tensor
    temperature: torch.Tensor

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(features, self.weight, self.bias) / self.temperature


class KernelHead(LinearHead):
    """A dense layer of exp(-gamma |x - s|^2) for the training images' features s."""

    mean: torch.Tensor
    support: torch.Tensor
    """Features of the training images minus `mean`, (N, F)."""
    gamma: torch.Tensor

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        inputs = features - self.mean
        distances = (inputs**2).sum(1)[:, None] + (self.support**2).sum(1) - 2 * inputs @ self.support.T
        return super().forward(torch.exp(-self.gamma * distances.clamp_min(0)))


def module_of(heads: Sequence[FittedHead], present: np.ndarray, classes: int) -> FittedHeads:
    """The fitted heads as one module for `classes` classes, of which they know those in `present` (int64)."""
    modules = {}
    for head in heads:
        tensors = {name: torch.tensor(value) for name, value in head.tensors.items()}
        weight = torch.zeros(classes, tensors["weight"].shape[1])
        bias = torch.full((classes,), head.temperature * ABSENT)
        weight[present], bias[present] = tensors["weight"], tensors["bias"]
        tensors |= {"weight": weight, "bias": bias, "temperature": torch.tensor(head.temperature)}
        modules[head.kind] = _head(tensors)
    return FittedHeads(modules)


def module_from(state: Mapping[str, torch.Tensor]) -> FittedHeads:
    """A module with the names and shapes of a saved model's `state`, in which the head is `head.<kind>.<tensor>`."""
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        if key.startswith("head."):
            _, kind, name = key.split(".")
            tensors.setdefault(kind, {})[name] = value.clone()
    return FittedHeads({kind: _head(values) for kind, values in tensors.items()})


def count_numbers(head: nn.Module) -> int:
    """The parameters of a fitted head: all numbers in it."""
    return sum(tensor.numel() for tensor in head.buffers())


def _head(tensors: Mapping[str, torch.Tensor]) -> LinearHead:
    return KernelHead(tensors) if "support" in tensors else LinearHead(tensors)
