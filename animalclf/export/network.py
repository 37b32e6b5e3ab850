"""A run's model as an ONNX graph: pixels uint8 of any size to calibrated class probabilities."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import onnx
import torch
from onnx import compose
from torch import nn
from torch.export import Dim

from animalclf.config import Config
from animalclf.data.resize import decoded_side
from animalclf.errors import UserError
from animalclf.export.preprocessing import OPSET, preprocessing
from animalclf.models.classifier import Classifier
from animalclf.utils.canvas import STEP
from animalclf.utils.text import reason

STORED, OUTPUT = "stored", "probabilities"
BATCH, SIDES = 2, (3 * STEP, 4 * STEP)  # of the example: the exporter takes a batch of 1 and equal sides for fixed


class Probabilities(nn.Module):
    """Stored images uint8 (N, S, S, 3), or (N, h, w, 3) for a model that keeps the shape of images, to class
    probabilities float32 (N, C)."""

    areas: torch.Tensor

    def __init__(self, model: Classifier, config: Config) -> None:
        super().__init__()
        model.keep_shape = False  # the graph has no canvas, whose padding the model would look for
        self.model = model
        stored, view = config.data.stored_size, config.view_size
        self.resizes = stored != view
        self.register_buffer("areas", torch.from_numpy(area_weights(stored, view)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.resizes:  # as `evaluation_view` in data/augment/numpy_form.py
            images = torch.einsum("ys,nstc,xt->nyxc", self.areas, images.float(), self.areas).round()
        return self.model(images).softmax(1)


def area_weights(old: int, new: int) -> np.ndarray:
    """Weights float32 (new, old) of a side's pixels in each pixel of the smaller side, as of OpenCV's INTER_AREA."""
    edges, pixels = np.arange(new + 1) * (old / new), np.arange(old)
    overlaps = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = overlaps.clip(0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def network_graph(model: Classifier, config: Config) -> onnx.ModelProto:
    """The graph from stored images, see Probabilities, to `probabilities`. Changes `model`. Raises UserError for a
    network that PyTorch cannot export."""
    size = config.data.stored_size
    sides = SIDES if config.keeps_shape else (size, size)
    dynamic = {0: Dim("batch")} | ({1: STEP * Dim("rows"), 2: STEP * Dim("columns")} if config.keeps_shape else {})
    example = torch.zeros((BATCH, *sides, 3), dtype=torch.uint8)
    messages = io.StringIO()  # the exporter's progress
    try:
        with torch.enable_grad(), warnings.catch_warnings(action="ignore"):  # so that BatchNorm stays a node
            with redirect_stdout(messages), redirect_stderr(messages):
                program = torch.onnx.export(
                    Probabilities(model, config).eval(),
                    (example,),
                    dynamo=True,
                    input_names=[STORED],
                    output_names=[OUTPUT],
                    dynamic_shapes=(dynamic,),
                    opset_version=OPSET,
                    verbose=False,
                )
    except Exception as error:  # the exporter raises errors of many types for what it does not support
        raise UserError(
            f"{config.model.name}: PyTorch {torch.__version__} cannot write this network as ONNX ({reason(error)}); "
            "use --to safetensors"
        ) from error
    assert program is not None
    return program.model_proto


def whole_graph(network: onnx.ModelProto, config: Config, classes: Sequence[str]) -> onnx.ModelProto:
    """The graph from `images` uint8 (N, H, W, 3), RGB, of any one size to `probabilities` float32 (N, C)."""
    before = compose.add_prefix(
        preprocessing(config.data.stored_size, config.data.resize),
        "preprocessing/",
        rename_inputs=False,
        rename_outputs=False,
    )
    network.ir_version = before.ir_version = max(network.ir_version, before.ir_version)
    model = compose.merge_models(before, network, [(before.graph.output[0].name, STORED)], producer_name="animalclf")
    min_side = decoded_side(config.data.stored_size, config.data.resize)  # of large JPEG images: data/decode.py
    properties = {"classes": "\n".join(classes), "recipe": config.name, "min_side": str(min_side)}
    onnx.helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    return model
