"""What a model gives for batches of images: class probabilities and, if asked for, a summary of each image's features.
Plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from animalclf.data.loader import Batch
from animalclf.models.classifier import features_and_logits
from animalclf.training import loop
from animalclf.training.frozen_features import with_recorded_rows

Summary = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Penultimate features float32 (N, F) and class probabilities float32 (N, C) to what is collected of each image, float
(N, ...)."""


class Outputs(NamedTuple):
    """Of N images."""

    rows: np.ndarray
    """The `index` of their batches, int64 (N,)."""
    probabilities: np.ndarray
    """float32 (N, C)."""
    summaries: np.ndarray | None
    """float32 (N, ...), if a summary was asked for and there are images."""


def features_only(features: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The summary that is the features themselves."""
    return features


@torch.no_grad()
def model_outputs(
    network: nn.Module,
    classes: int,
    batches: Iterator[Batch],
    device: torch.device,
    bf16: bool,
    summary: Summary | None = None,
) -> Outputs:
    """The outputs of a classifier for this rank's batches, or of its head for batches of the base's features."""
    indices, parts = [np.empty(0, np.int64)], [torch.empty((0, classes), device=device)]
    summaries: list[np.ndarray] = []
    for image, _ in loop.on_device(with_recorded_rows(batches, indices), device, loop.Clock()):
        with loop.autocast(device, bf16):
            if summary is None:
                parts.append(network(image).float().softmax(1))
            else:
                features, logits = features_and_logits(network, image)
                parts.append(logits.float().softmax(1))
                collected = summary(features.cpu().numpy(), parts[-1].cpu().numpy())
                summaries.append(collected.astype(np.float32))
    return Outputs(
        np.concatenate(indices), torch.cat(parts).cpu().numpy(), np.concatenate(summaries) if summaries else None
    )
