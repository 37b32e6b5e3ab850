"""Losses by name: `train.loss` selects one. A loss returns one value for each image; the loop weights them by class
and averages them. It must not wait for the GPU (no `.item()`), because CUDA graphs record the step.

To add one, register a function of the configuration that returns it. These functions import PyTorch themselves:
checks.resolve_config needs the names before Ray starts, and PyTorch takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from animalclf.config import Config
from animalclf.utils.registry import Registry

if TYPE_CHECKING:
    import torch

# Logits float32 (N, classes) and class numbers int64 (N,) to the loss of each image, float32 (N,).
Loss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
LOSSES: Registry[Callable[[Config], Loss]] = Registry("loss", key="train.loss", in_workers=True)
FOCAL_GAMMA = 2.0  # the paper's; larger values give more weight to the images that the model gets wrong
COSINE_CROSS_ENTROPY = 0.1  # the paper's


@LOSSES.register("cross_entropy")
def cross_entropy(config: Config) -> Loss:
    """Cross-entropy with `optim.label_smoothing`."""
    from torch.nn import functional

    return partial(functional.cross_entropy, reduction="none", label_smoothing=config.optim.label_smoothing)


@LOSSES.register("focal")
def focal(config: Config) -> Loss:
    """Focal loss (Lin et al. 2017): cross-entropy times (1 - p) ** 2, where p is the probability of the true class.
    Hard images weigh more than those that are already right. `optim.label_smoothing` applies to the cross-entropy."""
    return partial(_focal, cross_entropy(config))


@LOSSES.register("cosine")
def cosine(config: Config) -> Loss:
    """1 - the cosine between the logits and the one-hot label, plus 0.1 times the cross-entropy (Barz, Denzler 2020):
    for training from scratch on up to about 200 images of a class. `optim.label_smoothing` applies to the
    cross-entropy."""
    return partial(_cosine, cross_entropy(config))


def _focal(cross_entropy: Loss, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    probability = logits.softmax(1).gather(1, target[:, None])[:, 0]
    return (1 - probability) ** FOCAL_GAMMA * cross_entropy(logits, target)


def _cosine(cross_entropy: Loss, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    cosine = functional.normalize(logits, dim=1).gather(1, target[:, None])[:, 0]
    return 1 - cosine + COSINE_CROSS_ENTROPY * cross_entropy(logits, target)


def weighted_sum(losses: torch.Tensor, target: torch.Tensor, class_weights: torch.Tensor | None) -> torch.Tensor:
    """The sum of the images' losses float32 (N,), each times the weight of its class (float32 (classes,)), as Keras's
    class_weight does. Raises ValueError for losses of another shape, such as a mean."""
    if losses.shape != target.shape:
        raise ValueError(
            f"train.loss returns shape {tuple(losses.shape)} for {len(target)} images; it must return one for each"
        )
    return (losses if class_weights is None else losses * class_weights[target]).sum()


def log_loss_sum(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The summed log loss of logits float32 (N, classes): the validation loss for every `train.loss`, so that runs
    are comparable."""
    from torch.nn import functional

    return functional.cross_entropy(logits, target, reduction="sum")
