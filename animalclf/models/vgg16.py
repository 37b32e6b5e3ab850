"""VGG16 transfer: the reference notebook's model (flattened features, three dense layers), and a pooled one for small
sets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from animalclf import config
from animalclf.models import weights
from animalclf.models.big_cnn import dense_head
from animalclf.models.classifier import Classifier, keras_initialise
from animalclf.models.pooling import GlobalPool, refuse_pool
from animalclf.models.registry import MODELS

# Width and number of convolutions of each block (Simonyan, Zisserman 2014).
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
# The preprocessing of VGG16_Weights.IMAGENET1K_FEATURES: Keras's preprocess_input in RGB order.
MEAN, STD = (0.48235, 0.45882, 0.40784), (1 / 255,) * 3


@MODELS.register("vgg16")
def vgg16(spec: config.Model, classes: int, load_weights: bool = True) -> Classifier:
    """The layers of the reference notebook's transfer table: VGG16's convolutions, flatten, Dense 512, 256, dropout,
    128, logits."""
    refuse_pool(spec)
    base, side = _convolutions(), spec.input_size // 32
    dense = dense_head(512 * side * side, (512, 256), spec.dropout, 128, classes)
    head = nn.Sequential(OrderedDict([("flatten", nn.Flatten()), *dense.named_children()]))
    return _initialise(Classifier(base, head, MEAN, STD, spec.input_size, classes), spec, load_weights)


@MODELS.register("vgg16_pooled")
def vgg16_pooled(spec: config.Model, classes: int, load_weights: bool = True) -> Classifier:
    """Global max and mean pooling of the 512 maps, scaled to a common length, and one dense layer: as many parameters
    as a few hundred images can train. The dense layer starts at zero: it is a logistic regression, and random weights
    add noise that few images do not remove."""
    base, pooling = _convolutions(), GlobalPool("mean_max" if spec.pool == "auto" else spec.pool)
    base.add_module("pooling", pooling)
    logits = nn.Linear(pooling.width(512), classes)
    head = nn.Sequential(OrderedDict(dropout=nn.Dropout(spec.dropout), logits=logits))
    model = _initialise(Classifier(base, head, MEAN, STD, spec.input_size, classes), spec, load_weights)
    model.any_shape = True
    nn.init.zeros_(logits.weight)
    return model


class Convolutions(nn.Sequential):
    """Layers in sequence, with faster kernels on a GPU in bf16 if no gradient is needed.

    A convolution and its ReLU are one cuDNN kernel, which takes a third of the time of three kernels (convolution,
    bias, ReLU) that each read and write the whole map. Pooling does not store the positions of the maxima.
    """

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        layers = iter(self)
        for layer in layers:
            if isinstance(layer, nn.Conv2d) and _forward_only(layer, maps):
                conv_relu: Any = torch.cudnn_convolution_relu
                weight, bias = layer.weight.detach().bfloat16(), cast(torch.Tensor, layer.bias).detach().bfloat16()
                settings = (layer.stride, layer.padding, layer.dilation, layer.groups)
                maps = conv_relu(maps.bfloat16(), weight, bias, *settings)
                next(layers)  # its ReLU
            elif isinstance(layer, nn.MaxPool2d) and _forward_only(layer, maps) and (kernel := _pool_kernel(maps)):
                maps = kernel(maps)
            else:
                maps = layer(maps)
        return maps


def _forward_only(layer: nn.Module, maps: torch.Tensor) -> bool:
    """True if no gradient flows through `layer`, on an NVIDIA GPU under bf16 autocast."""
    needs_gradient = torch.is_grad_enabled() and (
        maps.requires_grad or any(parameter.requires_grad for parameter in layer.parameters())
    )
    bf16 = maps.is_cuda and torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.bfloat16
    return bf16 and not needs_gradient and torch.version.cuda is not None


def _pool_kernel(maps: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """None under `torch.compile`, which writes its own kernel, for maps of odd size or in NCHW order, and without
    Triton."""
    even = maps.shape[2] % 2 == 0 and maps.shape[3] % 2 == 0
    if torch.compiler.is_compiling() or not even or not maps.is_contiguous(memory_format=torch.channels_last):
        return None
    try:
        from animalclf.models.kernels.max_pool import max_pool
    except ImportError:
        return None
    return max_pool


def _convolutions() -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for number, (width, convolutions) in enumerate(BLOCKS, start=1):
        for position in range(1, convolutions + 1):
            layers[f"block{number}_conv{position}"] = nn.Conv2d(channels, width, 3, padding=1)
            layers[f"block{number}_relu{position}"] = nn.ReLU(inplace=True)
            channels = width
        layers[f"block{number}_pool"] = nn.MaxPool2d(2)
    return Convolutions(layers)


def _initialise(model: Classifier, spec: config.Model, load_weights: bool) -> Classifier:
    keras_initialise(model)
    if load_weights and spec.weights != "none":
        state = weights.fetch("vgg16", spec.weights)
        # torchvision's layer numbers (ReLU and pooling count) to our names; the classifier of a whole network is not
        # used.
        names = {
            str(number): name
            for number, (name, layer) in enumerate(model.base.named_children())
            if isinstance(layer, nn.Conv2d)
        }
        base_state = {}
        for key, value in state.items():
            number, dot, part = key.removeprefix("features.").partition(".")
            if number != "classifier":
                base_state[f"{names.get(number, number)}{dot}{part}"] = value
        weights.load_pretrained(model.base, base_state, spec.weights)
    return model
