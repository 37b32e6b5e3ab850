"""Learning-rate schedules by name: `optim.schedule` selects one, after a linear warm-up of `optim.warmup_epochs`.

To add one, register it here: the configuration accepts its name, and the documentation of `optim.schedule` has its
`summary`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from animalclf.utils.registry import Registry


@dataclass(frozen=True)
class LrSchedule:
    """A learning-rate schedule."""

    factor: Callable[[float], float]
    """The factor of `optim.lr` as a function of the fraction, 0 to 1, of the steps after the warm-up."""
    depends_on_epochs: bool
    """Whether the learning rate of a step depends on `train.epochs`. Then a run cannot be extended to more epochs."""
    summary: str
    """What the learning rate does, for the documentation: `stays at optim.lr`."""

    @property
    def doc(self) -> str:
        """`summary`, and what follows for `--resume`."""
        resume = "train.epochs cannot be changed on --resume" if self.depends_on_epochs else "--resume can add epochs"
        return f"{self.summary}; {resume}."


LR_SCHEDULES: Registry[LrSchedule] = Registry("learning-rate schedule", key="optim.schedule", in_workers=True)

LR_SCHEDULES.register("constant")(
    LrSchedule(lambda progress: 1.0, depends_on_epochs=False, summary="stays at optim.lr")
)
LR_SCHEDULES.register("cosine")(
    LrSchedule(
        lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
        depends_on_epochs=True,
        summary="falls from optim.lr to 0 at the last epoch, as half a cosine",
    )
)
