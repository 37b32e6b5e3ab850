"""Learning-rate schedules by name: `optim.schedule` selects one. All begin with a linear warm-up of
`optim.warmup_epochs`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from animalclf.config import Optim
from animalclf.utils.registry import Registry


@dataclass(frozen=True)
class LrSchedule:
    """A schedule: the factor of `optim.lr` as a function of the fraction 0 to 1 of the steps after the warm-up.

    `depends_on_epochs`: whether the rate of a step changes with the number of epochs; then a run cannot be resumed to
    more of them.
    """

    factor: Callable[[float], float]
    depends_on_epochs: bool


LR_SCHEDULES: Registry[LrSchedule] = Registry("learning-rate schedule", key="optim.schedule")

LR_SCHEDULES.register("constant")(LrSchedule(lambda progress: 1.0, depends_on_epochs=False))
LR_SCHEDULES.register("cosine")(
    LrSchedule(lambda progress: 0.5 * (1 + math.cos(math.pi * progress)), depends_on_epochs=True)
)


def learning_rate(spec: Optim, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate of optimizer step `step` (counted from 0 over the whole run). Raises UserError for an unknown
    schedule."""
    warmup = spec.warmup_epochs * steps_per_epoch
    if step < warmup:
        return spec.lr * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, steps_per_epoch * epochs - warmup)
    return spec.lr * LR_SCHEDULES.get(spec.schedule).factor(min(1.0, progress))
