"""EfficientNet-Lite (Google, 2020): inverted residual blocks, ReLU6, mean of the last map, and a linear head.

Small and accurate on a CPU: lite0 has 3.4 million parameters below its head and takes 0.4 GFLOP for an image of 224 px.
Its ImageNet weights come as Python packages (`model.weights: embedded`, see embedded.py): no model hub is needed.
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from animalclf import config
from animalclf.models import weights
from animalclf.models.classifier import Classifier
from animalclf.models.pooling import GlobalPool
from animalclf.models.registry import MODELS

MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
STEM, LAST = 32, 1280  # channels that are the same for every width
EPSILON, MOMENTUM = 1e-3, 0.01  # of BatchNorm


@dataclass(frozen=True)
class Stage:
    """Blocks of one output width at lite0's size; the first of them has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Scale(NamedTuple):
    """Factors of lite0's widths and depths."""

    width: float
    depth: float


SCALES = {
    "efficientnet_lite0": Scale(1.0, 1.0),
    "efficientnet_lite1": Scale(1.0, 1.1),
    "efficientnet_lite2": Scale(1.1, 1.2),
}


@MODELS.register("efficientnet_lite0")
@MODELS.register("efficientnet_lite1")
@MODELS.register("efficientnet_lite2")
def efficientnet_lite(spec: config.Model, classes: int, load_weights: bool = True) -> Classifier:
    """`spec.name` without its ImageNet classes, dropout, and a new dense layer for `classes`."""
    base, pooling = network(spec.name), GlobalPool("mean" if spec.pool == "auto" else spec.pool)
    base.add_module("pooling", pooling)
    if load_weights and spec.weights != "none":
        state = weights.fetch(spec.name, spec.weights)
        base_state = {
            name: value for name, value in rename_tensors(state, spec.name).items() if not name.startswith("classes.")
        }
        weights.load_pretrained(base, base_state, spec.weights)
    logits = nn.Linear(pooling.width(LAST), classes)
    nn.init.zeros_(logits.weight)
    nn.init.zeros_(logits.bias)
    head = nn.Sequential(OrderedDict(dropout=nn.Dropout(spec.dropout), logits=logits))
    model = Classifier(base, head, MEAN, STD, spec.input_size, classes)
    model.any_shape = True
    return model


def network(name: str) -> nn.Sequential:
    """The base `name`: pixels float32 (N, 3, H, W), scaled by MEAN and STD, to the last
    map (N, 1280, H / 32, W / 32)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=ConvNorm(3, STEM, 3, stride=2))
    channels = STEM
    for number, (stage, depth) in enumerate(zip(STAGES, _depths(name), strict=True), start=1):
        width = _round_width(stage.width * SCALES[name].width)
        blocks = []
        for position in range(depth):
            stride = stage.stride if position == 0 else 1
            blocks.append(InvertedResidual(channels, width, stage.kernel, stride, stage.expansion))
            channels = width
        layers[f"block{number}"] = nn.Sequential(*blocks)
    layers["last"] = ConvNorm(channels, LAST, 1)
    base = nn.Sequential(layers)
    for module in base.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return base


class ConvNorm(nn.Module):
    """Convolution, BatchNorm and (unless `linear`) ReLU6, padded as TensorFlow's SAME."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, EPSILON, MOMENTUM)
        self.linear = linear

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        if self.conv.stride[0] == 2:
            maps = nn.functional.pad(maps, same_padding(maps, self.conv.kernel_size[0]))
        maps = self._with_folded_norm(maps) if self._is_constant() else self.norm(self.conv(maps))
        return maps if self.linear else nn.functional.relu6(maps, inplace=True)

    def _is_constant(self) -> bool:
        """Whether nothing here trains and no gradient is recorded."""
        return not self.training and not torch.is_grad_enabled()

    def _with_folded_norm(self, maps: torch.Tensor) -> torch.Tensor:
        """Convolution with BatchNorm multiplied into its weights, which saves reading and writing the map once more."""
        conv, norm = self.conv, self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight, bias = conv.weight * factor.view(-1, 1, 1, 1), norm.bias - norm.running_mean * factor
        with _depthwise_kernel(conv, maps):
            return nn.functional.conv2d(maps, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def _depthwise_kernel(conv: nn.Conv2d, maps: torch.Tensor) -> contextlib.AbstractContextManager[None]:
    """On a GPU, depthwise convolutions by PyTorch's own kernel. cuDNN compiles one for each shape of the maps, which
    takes seconds for a network, and images that keep their shape come in many."""
    if maps.is_cuda and conv.groups > 1:
        return torch.backends.cudnn.flags(enabled=False)
    return contextlib.nullcontext()


class InvertedResidual(nn.Module):
    """1 x 1 expansion, depthwise convolution, 1 x 1 projection; plus the input if the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion > 1:
            layers["expand"] = ConvNorm(inputs, width, 1)
        layers["depthwise"] = ConvNorm(width, width, kernel, stride, groups=width)
        layers["project"] = ConvNorm(width, outputs, 1, linear=True)
        self.layers = nn.Sequential(layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps + self.layers(maps) if self.residual else self.layers(maps)


def same_padding(maps: torch.Tensor, kernel: int) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) as TensorFlow's SAME pads maps (N, C, H, W) for a convolution of stride 2: the odd
    pixel comes last."""
    pads = []
    for side in (maps.shape[3], maps.shape[2]):
        total = kernel - 2 + side % 2
        pads += [total // 2, total - total // 2]
    return pads[0], pads[1], pads[2], pads[3]


def rename_tensors(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Tensors in the names of the package `efficientnet-lite-pytorch` under the names of `network`; its dense layer
    as `classes.`, other names unchanged."""
    prefixes = {"_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "last.conv", "_bn1": "last.norm"}
    prefixes["_fc"] = "classes"
    layers = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
    layers["project"] = ("_project_conv", "_bn2")
    blocks = [f"block{stage}.{number}" for stage, depth in enumerate(_depths(name), start=1) for number in range(depth)]
    for number, block in enumerate(blocks):
        for layer, (conv, norm) in layers.items():
            prefixes[f"_blocks.{number}.{conv}"] = f"{block}.layers.{layer}.conv"
            prefixes[f"_blocks.{number}.{norm}"] = f"{block}.layers.{layer}.norm"
    return {_rename(key, prefixes): value for key, value in state.items()}


def _rename(key: str, prefixes: dict[str, str]) -> str:
    prefix, _, tensor = key.rpartition(".")
    return f"{prefixes.get(prefix, prefix)}.{tensor}" if prefix else key


def _depths(name: str) -> list[int]:
    """Blocks of each stage; the first and the last stage have the same for every depth."""
    inner = [math.ceil(stage.blocks * SCALES[name].depth) for stage in STAGES[1:-1]]
    return [STAGES[0].blocks, *inner, STAGES[-1].blocks]


def _round_width(width: float) -> int:
    """To a multiple of 8, reduced by a tenth at most."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded
