"""Class probabilities, and summaries of the features, of batches of images on one device. Plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from animalclf.config import Config
from animalclf.data.loader import Batch
from animalclf.inference.views import CANVAS_VIEWS, VIEWS
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
    if len(VIEWS[views]) == 1:
        return model_outputs(model, model.classes, batches, device, bf16, summary)
    outputs = view_outputs(model, batches, device, bf16, views, summary)
    return outputs._replace(probabilities=outputs.probabilities.mean(1))


def view_outputs(
    model: Classifier,
    batches: Iterator[Batch],
    device: torch.device,
    bf16: bool,
    views: str,
    summary: Summary | None = None,
) -> Outputs:
    """As `batch_outputs`, with the probabilities of each of V views, float32 (N, V, C), the image itself first. The
    rows ascend."""
    functions = (CANVAS_VIEWS if model.keep_shape else VIEWS)[views]
    parts = ({**batch, "image": function(batch["image"])} for batch in batches for function in functions)
    rows, probabilities, summaries = model_outputs(model, model.classes, parts, device, bf16, summary)
    order = np.argsort(rows, kind="stable")  # the views of a row are neighbours, the first is the image itself
    first = order[:: len(functions)]
    shape = (-1, len(functions), probabilities.shape[1])
    return Outputs(rows[first], probabilities[order].reshape(shape), None if summaries is None else summaries[first])


def uses_bf16(config: Config, device: torch.device) -> bool:
    """Whether the model computes in bfloat16: on a GPU as in training, on a CPU only if configured."""
    precision = config.train.precision
    return precision == "bf16" if device.type == "cpu" else loop.choose_bf16(precision, device)
