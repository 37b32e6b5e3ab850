"""The constant context of a training on one rank, and the progress of its passes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from animalclf.config import Config
from animalclf.data.loader import LoaderFactory
from animalclf.data.prepared_set import Prepared
from animalclf.data.sampler import Phase, SamplingPlan
from animalclf.rows import PhaseProgress
from animalclf.runs import Run
from animalclf.training.distributed import RankContext
from animalclf.training.loop import choose_bf16
from animalclf.training.progress import Report
from animalclf.utils.throttle import Throttle

PROGRESS_SECONDS = 0.5  # between two progress events of a pass


@dataclass(frozen=True, eq=False)
class TrainContext:
    """Settings, data, run folder and ranks: what the functions of a training read and never change."""

    config: Config
    prepared: Prepared
    plan: SamplingPlan
    run: Run
    ranks: RankContext
    make_loader: LoaderFactory
    """`make_loader(plan, passes)` creates the loader of this rank's batches."""
    report: Report
    """Takes progress events; they are reported by rank 0."""
    validate: bool = True
    """Whether each epoch is validated on the plan's validation images, not only the last one."""
    features_seconds: float = 0.0
    """That this training's part of the cached maps took (cached_views.py)."""

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of the model's outputs."""
        return self.prepared.classes

    @property
    def val_rows(self) -> int:
        """Images that each epoch is validated on."""
        return len(self.plan.rows["val"]) if self.validate else 0

    @property
    def bf16(self) -> bool:
        """Whether forward passes run in bfloat16."""
        return choose_bf16(self.config.train.precision, self.ranks.device)

    def class_counts(self) -> np.ndarray:
        """Training images of each class, int64 (classes,)."""
        return np.bincount(self.plan.labels[self.plan.rows["train"]], minlength=len(self.classes))


class PassProgress:
    """Reports the progress of a pass, at most twice a second, and at its end."""

    def __init__(self, context: TrainContext, phase: Phase, epoch: int) -> None:
        self.context, self.phase, self.epoch = context, phase, epoch
        self.total = len(context.plan.rows[phase])
        self.throttle = Throttle(PROGRESS_SECONDS)

    def __call__(self, done: int, seconds: float) -> None:
        """`done` images over all ranks after `seconds`."""
        if self.throttle.ready(always=done >= self.total):
            epoch, epochs, done = self.epoch + 1, self.context.config.train.epochs, min(done, self.total)
            self.context.report(PhaseProgress(self.phase, done, self.total, seconds, epoch, epochs))
