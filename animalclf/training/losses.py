"""Losses by name: `train.loss` selects one. A loss gives one value for each image; the loop weights them by class and
averages them. It must not wait for the GPU (no `.item()`): CUDA graphs record the step.

To add one, register a function of the configuration that returns it. PyTorch is imported inside these functions,
because the driver checks the name before it starts Ray, while PyTorch takes seconds to import.
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
LOSSES: Registry[Callable[[Config], Loss]] = Registry("loss", key="train.loss")
FOCAL_GAMMA = 2.0  # the paper's; larger values turn further to the images that the model gets wrong


@LOSSES.register("cross_entropy")
def cross_entropy(config: Config) -> Loss:
    """Cross-entropy, with the targets smoothed by `optim.label_smoothing`."""
    from torch.nn import functional

    return partial(functional.cross_entropy, reduction="none", label_smoothing=config.optim.label_smoothing)


@LOSSES.register("focal")
def focal(config: Config) -> Loss:
    """Focal loss (Lin et al. 2017): cross-entropy times (1 - p) ** 2, where p is the probability of the true class.
    Images that are already right weigh less than the hard ones. `optim.label_smoothing` smooths the cross-entropy."""
    return partial(_focal, cross_entropy(config))


def _focal(cross_entropy: Loss, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    probability = logits.softmax(1).gather(1, target[:, None])[:, 0]
    return (1 - probability) ** FOCAL_GAMMA * cross_entropy(logits, target)


def weighted_sum(losses: torch.Tensor, target: torch.Tensor, class_weights: torch.Tensor | None) -> torch.Tensor:
    """The sum of the images' losses float32 (N,), each times the weight of its class (float32 (classes,)), as Keras's
    class_weight does. Raises ValueError for a loss that gives another shape, such as a mean."""
    if losses.shape != target.shape:
        raise ValueError(
            f"train.loss gives values of shape {tuple(losses.shape)}, not one for each of {len(target)} images"
        )
    return (losses if class_weights is None else losses * class_weights[target]).sum()


def log_loss_sum(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The summed log loss of logits float32 (N, classes): the validation loss, whatever loss is trained, so that runs
    compare."""
    from torch.nn import functional

    return functional.cross_entropy(logits, target, reduction="sum")
