"""The constant context of a training on one rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from animalclf.config import Config
from animalclf.data.loader import LoaderFactory
from animalclf.data.prepared_set import Prepared
from animalclf.data.sampler import SamplingPlan
from animalclf.runs import Run
from animalclf.training.distributed import RankContext
from animalclf.training.loop import choose_bf16
from animalclf.training.progress import Report


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

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of the model's outputs."""
        return self.prepared.classes

    @property
    def bf16(self) -> bool:
        """Whether forward passes run in bfloat16."""
        return choose_bf16(self.config.train.precision, self.ranks.device)

    def class_counts(self) -> np.ndarray:
        """Training images of each class, int64 (classes,)."""
        return np.bincount(self.plan.labels[self.plan.rows["train"]], minlength=len(self.classes))
