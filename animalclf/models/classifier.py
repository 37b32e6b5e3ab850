"""A classifier: preprocessing, a base (images to features), a head (features to logits), and which layers train."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from animalclf.errors import UserError
from animalclf.utils.canvas import PADDING, STEP

CHANNELS = 3  # of an image
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Classifier(nn.Module):
    """`head(features(images))`, with the preprocessing inside, so that it is the same in training, evaluation and
    prediction.

    `mean` and `std` are of pixels in 0..1, RGB. `base` maps float (N, 3, S, S) to its features, `head` those to float32
    (N, classes), also under bf16 autocast. `channels_last=False` makes the base compute in NCHW order, which costs a
    copy of the images.
    """

    channels_last = True
    any_shape = False
    """Whether the base takes images (N, 3, H, W) of any shape and gives features of one size."""
    keep_shape = False
    """The images are canvases (utils/canvas.py): compute on each image's own shape."""
    temperature = 1.0
    """Divides the logits, so that confidence agrees with accuracy; 1 in training."""
    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        base: nn.Module,
        head: nn.Sequential,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: int,
        classes: int,
    ) -> None:
        super().__init__()
        head.add_module("float32", Float32())  # in the head, because a head on cached features runs without `forward`
        self.base: nn.Module = base
        self.head: nn.Module = head
        self.input_size, self.classes = input_size, classes
        # NumPy's arithmetic: on the meta device, where a configuration is checked, PyTorch's imports its compiler.
        self.register_buffer(
            "mean", torch.tensor(np.asarray(mean, np.float32) * 255).view(1, 3, 1, 1), persistent=False
        )
        self.register_buffer(
            "scale", torch.tensor(1 / (np.asarray(std, np.float32) * 255)).view(1, 3, 1, 1), persistent=False
        )

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Features of RGB images (N, S, S, 3), uint8 or float in 0..255, or of what `lower_maps` computes of them."""
        if images.shape[-1] != CHANNELS:
            layers: nn.Module = self.base[self.frozen_layers :]  # type: ignore[index]
            features: torch.Tensor = layers(self._ordered(images.permute(0, 3, 1, 2)))
            return features
        if not self.keep_shape:
            return self._features(images)
        boxes: dict[tuple[int, ...], list[int]] = {}
        for row, box in enumerate(content_boxes(images).tolist()):
            boxes.setdefault(tuple(box), []).append(row)
        order = torch.tensor([row for rows in boxes.values() for row in rows], device=images.device)
        parts = [
            self._features(images[rows, top:bottom, left:right]) for (top, bottom, left, right), rows in boxes.items()
        ]
        return torch.cat(parts)[order.argsort()]

    def lower_maps(self, images: torch.Tensor) -> torch.Tensor:
        """Maps (N, H, W, C) of images, as in `features`, after the first `frozen_layers` of the base."""
        layers: nn.Module = self.base[: self.frozen_layers]  # type: ignore[index]
        maps: torch.Tensor = layers(self._pixels(images))
        return maps.permute(0, 2, 3, 1)

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.base(self._pixels(images))
        return features

    def _pixels(self, images: torch.Tensor) -> torch.Tensor:
        # A permuted view of NHWC images is a channels_last tensor: no copy.
        return self._ordered((images.permute(0, 3, 1, 2).float() - self.mean) * self.scale)

    def _ordered(self, maps: torch.Tensor) -> torch.Tensor:
        return maps if self.channels_last else maps.contiguous()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float32 (N, classes) of RGB images (N, S, S, 3), uint8 or float in 0..255."""
        logits = self.head(self.features(images))
        return logits if self.temperature == 1 else logits / self.temperature

    def train(self, mode: bool = True) -> Classifier:
        """Training mode, except for frozen layers: their BatchNorm statistics, dropout and stochastic depth stay in
        evaluation mode."""
        super().train(mode)
        for module in self.modules() if mode else ():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()  # with its children: the dropout of a frozen block has no parameters
        return self

    @property
    def frozen_features(self) -> bool:
        """True if no layer of the base trains, so that an image's features never change."""
        return not any(parameter.requires_grad for parameter in self.base.parameters())

    @property
    def frozen_layers(self) -> int:
        """How many layers at the start of the base do not train, if it is a sequence of layers; else 0."""
        if not isinstance(self.base, nn.Sequential):
            return 0
        trains = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in self.base]
        return [*trains, True].index(True)


def features_and_logits(network: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The penultimate features float32 (N, F), which the last dense layer (or the fitted heads) takes, and the output
    of `network`: a classifier for images, or its head for features of the base."""
    if isinstance(network, Classifier):
        features, logits = features_and_logits(network.head, network.features(inputs))
        return features, logits if network.temperature == 1 else logits / network.temperature
    layers = list(network) if isinstance(network, nn.Sequential) else [network]
    last = max((number for number, layer in enumerate(layers) if isinstance(layer, nn.Linear)), default=0)
    for layer in layers[:last]:
        inputs = layer(inputs)
    outputs = inputs
    for layer in layers[last:]:
        outputs = layer(outputs)
    return inputs.float().flatten(1), outputs


def content_boxes(canvases: torch.Tensor) -> torch.Tensor:
    """(top, bottom, left, right) int64 (N, 4) of the images on canvases (N, S, S, 3): without the padding at the edges,
    rounded outwards to multiples of STEP. The whole canvas if it is all padding."""
    filled = (canvases != PADDING).any(3)
    edges = []
    for lines in (filled.any(2), filled.any(1)):
        first, last = lines.int().argmax(1), lines.shape[1] - lines.flip(1).int().argmax(1)
        edges += [first // STEP * STEP, -(-last // STEP) * STEP]
    return torch.stack(edges, 1)


class Float32(nn.Module):
    """Its input as float32: the last step of a head, so that the loss is exact under autocast."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.float()


def freeze_all_but(model: Classifier, trainable: Sequence[str]) -> None:
    """Freeze all layers but those whose name begins with one of `trainable` ("all": every layer; "none": no layer;
    "head": the head); see `layer_names`.

    Frozen weights get requires_grad=False, so that autograd records nothing for them. Raises UserError for a name that
    fits no layer.
    """
    names = layer_names(model)
    for prefix in trainable:
        if prefix not in ("all", "none") and not any(_has_prefix(name, prefix) for name in names):
            raise UserError(f"model.trainable: no layer is called {prefix!r}; layers: all, none, {', '.join(names)}")
    for name, parameter in model.named_parameters():
        matches = any(_has_prefix(_short_name(name), prefix) for prefix in trainable)
        parameter.requires_grad = "all" in trainable or matches


def layer_names(model: Classifier) -> list[str]:
    """The names that `model.trainable` accepts, in order: layers of the base by their own name, those of the head with
    the prefix `head.`."""
    names = [_short_name(name).rpartition(".")[0] for name, _ in model.named_parameters()]
    return list(dict.fromkeys(names))


def _has_prefix(name: str, prefix: str) -> bool:
    """True if `name` begins with `prefix`; a number counts as a whole: features.1 is no prefix of features.10."""
    splits_number = prefix[-1:].isdigit() and name[len(prefix) :][:1].isdigit()
    return bool(prefix) and name.startswith(prefix) and not splits_number


def _short_name(name: str) -> str:
    # A layer of the base that is called head (timm's ConvNeXt has one) is not part of the head.
    return name if name.startswith("base.head") else name.removeprefix("base.")


def count_parameters(module: nn.Module, trainable_only: bool = False) -> int:
    """Parameters as Keras counts its "total params": with BatchNorm's two moving statistics per channel. With
    `trainable_only`, those that the optimizer changes."""
    parameters = sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)
    statistics = sum(2 * m.num_features for m in module.modules() if isinstance(m, nn.BatchNorm2d))
    return parameters if trainable_only else parameters + statistics


def keras_initialise(module: nn.Module) -> None:
    """Keras's defaults for convolutions and dense layers: Glorot uniform weights, zero biases (Glorot, Bengio 2010)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
