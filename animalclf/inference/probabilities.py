"""Class probabilities, and summaries of the features, of batches of images on one device. Plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from animalclf.config import Config
from animalclf.data.loader import Batch
from animalclf.inference.views import VIEWS
from animalclf.models.classifier import Classifier
from animalclf.training import loop
from animalclf.training.outputs import Outputs, Summary, model_outputs


def batch_outputs(
    model: Classifier,
    batches: Iterator[Batch],
    device: torch.device,
    bf16: bool,
    views: str = "none",
    summary: Summary | None = None,
) -> Outputs:
    """Class probabilities, and the `summary` of the features, of every image. With several `views` (a name of VIEWS)
    the rows ascend, each has the mean of its views' probabilities, and the summary of the image itself."""
    functions = VIEWS[views]
    if len(functions) == 1:
        return model_outputs(model, model.classes, batches, device, bf16, summary)
    parts = ({**batch, "image": function(batch["image"])} for batch in batches for function in functions)
    rows, probabilities, summaries = model_outputs(model, model.classes, parts, device, bf16, summary)
    order = np.argsort(rows, kind="stable")  # the views of a row are neighbours, the first is the image itself
    first = order[:: len(functions)]
    shape = (-1, len(functions), probabilities.shape[1])
    means = probabilities[order].reshape(shape).mean(1)
    return Outputs(rows[first], means, None if summaries is None else summaries[first])


def uses_bf16(config: Config, device: torch.device) -> bool:
    """Whether the model computes in bfloat16: on a GPU as in training, on a CPU only if configured."""
    precision = config.train.precision
    return precision == "bf16" if device.type == "cpu" else loop.choose_bf16(precision, device)
