"""The formats of an exported model, each a function from a loaded model to the content of a file."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from animalclf import config as configuration
from animalclf.errors import UserError
from animalclf.models.classifier import Classifier
from animalclf.training.checkpoint import ModelInfo
from animalclf.utils.registry import Registry

if TYPE_CHECKING:
    import onnx

MAX_BYTES = 2**31 - 1  # of a protobuf message


@dataclass
class Exporting:
    """What the formats of one export share."""

    model: Classifier
    info: ModelInfo

    @cached_property
    def network(self) -> onnx.ModelProto:
        """The graph without preprocessing."""
        from animalclf.export.network import network_graph

        return network_graph(self.model, self.info.config)


@dataclass(frozen=True)
class Format:
    """`write` gives the content of `file`; `packages` must be installed for it; `exact`: its probabilities are those of
    the model."""

    file: str
    packages: tuple[str, ...]
    write: Callable[[Exporting], bytes]
    description: str
    exact: bool = True


FORMATS: Registry[Format] = Registry("format", key="--to")


def _onnx(exporting: Exporting) -> bytes:
    return _serialized(exporting, exporting.network)


def _onnx_int8(exporting: Exporting) -> bytes:
    """Weights of convolutions and dense layers in 8 bits, scaled by channel; activations are quantised as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "network.onnx"), Path(folder, "int8.onnx")
        onnx.save(exporting.network, str(source))
        # Neither the weights of the resizing in front of the network nor distances to training images bear 8 bits.
        names = ("areas", "model.head.") if exporting.info.config.train.heads else ("areas",)
        exact = [
            node.name for node in exporting.network.graph.node if any(name in " ".join(node.input) for name in names)
        ]
        with _no_warnings():
            quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QUInt8, nodes_to_exclude=exact)
        return _serialized(exporting, onnx.load(str(target)))


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Without the advice that onnxruntime's quantisation logs."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _safetensors(exporting: Exporting) -> bytes:
    from safetensors.torch import save

    state = {name: tensor.contiguous() for name, tensor in exporting.model.state_dict().items()}
    metadata = {
        "format": "pt",
        "classes": json.dumps(exporting.info.classes, ensure_ascii=False),
        "config": json.dumps(configuration.to_dict(exporting.info.config)),
        "temperature": repr(exporting.info.temperature),
        "prior": json.dumps(exporting.info.prior),
    }
    return save(state, metadata)


def _serialized(exporting: Exporting, network: onnx.ModelProto) -> bytes:
    from animalclf.export.network import whole_graph

    if network.ByteSize() > MAX_BYTES:
        raise UserError(f"{exporting.info.config.model.name}: larger than 2 GB as ONNX; use --to safetensors")
    return whole_graph(network, exporting.info.config, exporting.info.classes).SerializeToString()


FORMATS.register("onnx")(
    Format("model.onnx", ("onnx", "onnxscript"), _onnx, "pixels to probabilities, for onnxruntime and others")
)
FORMATS.register("onnx-int8")(
    Format(
        "model-int8.onnx", ("onnx", "onnxscript", "onnxruntime"), _onnx_int8,
        "the same with weights of 8 bits: a quarter of the size, less accurate", exact=False,
    )
)  # fmt: skip
FORMATS.register("safetensors")(Format("model.safetensors", ("safetensors",), _safetensors, "the weights alone"))
