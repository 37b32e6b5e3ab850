"""mixup and CutMix: each picture of a batch is mixed with its neighbour, on the training device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from animalclf.config import Augment


@dataclass(frozen=True, eq=False)
class Mixed:
    """Pictures (N, S, S, 3), their labels int64 (N,), the labels `other` of what is mixed in (None: nothing), and the share of `label`, 0.5 to 1."""

    image: torch.Tensor
    label: torch.Tensor
    other: torch.Tensor | None
    share: float


def mix(augment: Augment, seed: int, epoch: int, step: int, image: torch.Tensor, label: torch.Tensor) -> Mixed:
    """mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019), by lot where both are asked for. All ranks draw the same share; the pairs are within
    a rank's batch, so with mixing the result depends on the number of workers."""
    generator = np.random.default_rng([seed, epoch, step, 0x6D6978])
    cut = bool(augment.cutmix and (not augment.mixup or generator.random() < 0.5))
    alpha = augment.cutmix if cut else augment.mixup
    share = generator.beta(alpha, alpha)
    share = max(share, 1 - share)  # the same mixtures, and the first label is always that of the larger part
    other, size = image.roll(1, 0), image.shape[1]
    if not cut:
        return Mixed(image.float().lerp(other.float(), 1 - share), label, label.roll(1), float(share))
    side = round(size * (1 - share) ** 0.5)
    left, top = generator.integers(0, size - side + 1, 2)
    image = image.clone()
    image[:, top : top + side, left : left + side] = other[:, top : top + side, left : left + side]
    return Mixed(image, label, label.roll(1), 1 - side * side / size**2)
