"""mixup and CutMix: each image of a batch is mixed with its neighbour, on the training device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from animalclf.config import Augment, Config

DRAW = 0x6D6978  # sets these random numbers apart from others of the same seed and epoch


@dataclass(frozen=True, eq=False)
class MixedBatch:
    """Images (N, S, S, 3), their labels int64 (N,), the labels int64 (N,) of the images mixed into them (None without
    mixing), and the fraction of `label` in the mixture, 0.5 to 1."""

    image: torch.Tensor
    label: torch.Tensor
    partner_label: torch.Tensor | None = None
    fraction: float = 1.0

    def micro_batches(self, count: int) -> Iterator[MixedBatch]:
        """`count` parts whose sizes differ by at most one."""
        images, labels = self.image.tensor_split(count), self.label.tensor_split(count)
        partner_labels = [None] * count if self.partner_label is None else self.partner_label.tensor_split(count)
        for image, label, partner_label in zip(images, labels, partner_labels, strict=True):
            yield MixedBatch(image, label, partner_label, self.fraction)


def mixes(config: Config, epoch: int) -> bool:
    """Whether the steps of `epoch`, counted from 0, mix their images."""
    augment = config.augment
    return bool(augment.mixup or augment.cutmix) and epoch < config.train.epochs - augment.mix_off_epochs


def mix_batch(
    image: torch.Tensor, label: torch.Tensor, step: int, *, augment: Augment, seed: int, epoch: int
) -> MixedBatch:
    """mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019), in `augment.mix_fraction` of the steps; if both are set,
    one of them at random in each step.

    All ranks draw the same fraction. The pairs are within a rank's batch, so with mixing the result depends on the
    number of workers.
    """
    generator = np.random.default_rng([seed, epoch, step, DRAW])
    if augment.mix_fraction < 1 and generator.random() >= augment.mix_fraction:
        return MixedBatch(image, label)
    cut = bool(augment.cutmix and (not augment.mixup or generator.random() < 0.5))
    alpha = augment.cutmix if cut else augment.mixup
    fraction = generator.beta(alpha, alpha)
    fraction = max(fraction, 1 - fraction)  # the same mixtures, with `label` always that of the larger part
    partner, size = image.roll(1, 0), image.shape[1]
    if not cut:
        return MixedBatch(image.float().lerp(partner.float(), 1 - fraction), label, label.roll(1), float(fraction))
    side = round(size * (1 - fraction) ** 0.5)
    left, top = generator.integers(0, size - side + 1, 2)
    image = image.clone()
    image[:, top : top + side, left : left + side] = partner[:, top : top + side, left : left + side]
    return MixedBatch(image, label, label.roll(1), 1 - side * side / size**2)
