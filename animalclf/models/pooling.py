"""Global pooling of feature maps, by name (`model.pool`)."""

from __future__ import annotations

import math

import torch
from torch import nn

from animalclf import config
from animalclf.errors import UserError

GEM_POWER = 3.0  # of Radenovic, Tolias, Chum 2018; 1 is the mean, infinity the maximum


class GlobalPool(nn.Module):
    """Feature maps (N, C, H, W) to vectors (N, width(C)), float32: `kind` is mean, max, gem or mean_max."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def width(self, channels: int) -> int:
        """The number of features that it makes of this number of maps."""
        return 2 * channels if self.kind == "mean_max" else channels

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = maps.float()
        if self.kind == "mean":
            return maps.mean((2, 3))
        if self.kind == "max":
            return maps.amax((2, 3))
        if self.kind == "gem":
            return maps.clamp_min(1e-6).pow(GEM_POWER).mean((2, 3)).pow(1 / GEM_POWER)
        return _max_and_mean(maps)


def _max_and_mean(maps: torch.Tensor) -> torch.Tensor:
    """Maximum and mean, each scaled to vectors of length sqrt(C), so that a feature is of the order of 1: (N, 2C)."""
    pooled = (maps.amax((2, 3)), maps.mean((2, 3)))
    return torch.cat([nn.functional.normalize(vector, dim=1) for vector in pooled], 1) * math.sqrt(maps.shape[1])


def refuse_pool(spec: config.Model) -> None:
    """Raise UserError for a pooling of a network that flattens its last map."""
    if spec.pool != "auto":
        raise UserError(
            f"model.pool={spec.pool}: {spec.name} flattens its last map; set model.pool=auto, or another model.name "
            "(such as vgg16_pooled)"
        )
