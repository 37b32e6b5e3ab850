"""The keys of `optim.*`: the optimizer and its learning rate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from animalclf.config.values import STRICT, Number, NumberOrInf, Registered, Text
from animalclf.lr_schedules import LR_SCHEDULES


def _schedule_docs() -> dict[str, str]:
    return {name: schedule.doc for name, schedule in LR_SCHEDULES.entries().items()}


@dataclass(frozen=True, config=STRICT)
class Optim:
    """The optimizer, its learning rate and regularisation."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """Optimizer. adam: as in the reference notebook. adamw: decoupled weight decay, the usual choice for transfer. sgd:
    with Nesterov momentum."""

    lr: Annotated[Number, Field(gt=0)] = 1e-3
    """Learning rate, the highest of the schedule. It is not scaled with the batch size. The first key to tune: try
    factors of 3."""

    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    """Weight decay of matrices and convolutions; biases and norm scales are never decayed. 0.01 to 0.1 is usual with
    adamw."""

    eps: Annotated[Number, Field(gt=0)] = 1e-7
    """Constant that Adam adds to the denominator. 1e-7 is Keras's, 1e-8 PyTorch's default. sgd does not use it."""

    momentum: Number = 0.9  # checked with sgd only (Config): the other optimizers ignore it
    """Momentum of sgd, from 0 to below 1; adam and adamw do not use it."""

    schedule: Annotated[Text, Registered(LR_SCHEDULES.names, _schedule_docs)] = "constant"
    """Learning rate over the run, after the warm-up."""

    warmup_epochs: Annotated[Number, Field(ge=0)] = 0.0
    """Epochs in which the learning rate rises linearly to optim.lr; at most train.epochs. 0.5 to 5 helps large batches
    and pretrained weights."""

    clip_norm: Annotated[NumberOrInf, Field(ge=0)] = 0.0
    """Largest norm of the gradient over all parameters; longer gradients are scaled down. Set 1.0 when the loss jumps
    or becomes NaN. 0 and .inf do not clip."""

    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Fraction of the target probability that is spread evenly over all classes. 0.1 is usual; it makes the model less
    overconfident. 0 does not smooth."""

    ema: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential moving average of the weights, which is then what is evaluated and saved. 0.998 averages
    over about 500 steps. 0 keeps no average."""

    base_lr_factor: Annotated[Number, Field(gt=0)] = 1.0
    """Factor of the learning rate of the base's last block; the head has optim.lr. 0.1 is usual for a pretrained base
    with a new head."""

    layer_decay: Annotated[Number, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from each block of the base to the one below it (Clark et al. 2020; Bao et al. 2022):
    0.65 to 0.9 for transformers. A block is all layers whose names begin alike up to the first number:
    block5, layer4, encoder_layer_11. 1 is the same rate everywhere."""

    l2_sp: Annotated[Number, Field(ge=0)] = 0.0
    """Strength of L2-SP, half the squared distance of the base's weights from where they started (Li, Grandvalet,
    Davoine 2018): fine-tuning on few images forgets less. 0.001 to 0.1; instead of weight decay. 0 turns it off."""

    wise_ft: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Fraction of the initial weights in the model that is evaluated and saved, the rest being the tuned ones (WiSE-FT,
    Wortsman et al. 2022); 0.5 is usual. Needs train.head_start=fitted. 0 takes the tuned weights alone."""
