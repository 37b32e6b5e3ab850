"""Class probabilities of batches of images on one device. Plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from animalclf.config import Config
from animalclf.data.loader import Batch
from animalclf.inference.views import VIEWS
from animalclf.models.classifier import Classifier
from animalclf.training import final_eval, loop


def batch_probabilities(
    model: Classifier, batches: Iterator[Batch], device: torch.device, bf16: bool, views: str = "none"
) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 (N,) and class probabilities float32 (N, C), as by final_eval.predict; with several `views` (a name
    of VIEWS) the rows ascend, and each has the mean over its views."""
    functions = VIEWS[views]
    if len(functions) == 1:
        return final_eval.predict(model, model.classes, batches, device, bf16)
    parts = ({**batch, "image": function(batch["image"])} for batch in batches for function in functions)
    index, probabilities = final_eval.predict(model, model.classes, parts, device, bf16)
    order = np.argsort(index, kind="stable")  # the views of a row are neighbours
    shape = (-1, len(functions), probabilities.shape[1])
    return index[order][:: len(functions)], probabilities[order].reshape(shape).mean(1)


def uses_bf16(config: Config, device: torch.device) -> bool:
    """Whether the model computes in bfloat16: on a GPU as in training, on a CPU only if configured."""
    precision = config.train.precision
    return precision == "bf16" if device.type == "cpu" else loop.choose_bf16(precision, device)
