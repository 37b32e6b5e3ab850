"""Class probabilities of batches of images on one device. Plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from animalclf.config import Config
from animalclf.data.loader import Batch
from animalclf.models.classifier import Classifier
from animalclf.training import final_eval, loop


def batch_probabilities(
    model: Classifier, batches: Iterator[Batch], device: torch.device, bf16: bool, flips: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 (N,) and class probabilities float32 (N, C), as by final_eval.predict; with `flips` the rows ascend,
    and each has the mean over the image and its mirror image."""
    if not flips:
        return final_eval.predict(model, model.classes, batches, device, bf16)
    views = (view for batch in batches for view in (batch, _mirrored(batch)))
    index, probabilities = final_eval.predict(model, model.classes, views, device, bf16)
    order = np.argsort(index, kind="stable")  # the two views of a row are neighbours
    return index[order][::2], probabilities[order].reshape(-1, 2, probabilities.shape[1]).mean(1)


def uses_bf16(config: Config, device: torch.device) -> bool:
    """Whether the model computes in bfloat16: on a GPU as in training, on a CPU only if configured."""
    precision = config.train.precision
    return precision == "bf16" if device.type == "cpu" else loop.choose_bf16(precision, device)


def _mirrored(batch: Batch) -> Batch:
    return {**batch, "image": np.ascontiguousarray(batch["image"][:, :, ::-1])}
