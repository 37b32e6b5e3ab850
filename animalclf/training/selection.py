"""Images that select the epoch (`train.select_fraction`): a part of the training images, so that the validation images
select nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from animalclf.features.folds import deal_folds
from animalclf.training.context import TrainContext


def selection_context(context: TrainContext) -> TrainContext:
    """A context that trains on most training images and validates each epoch on the others, which
    `train.select_fraction` holds out. Without it `context` itself.

    The part is stratified, has the duplicates of its images, and is drawn by `data.split_seed`. No class loses all of
    its training images.
    """
    fraction, plan = context.config.train.select_fraction, context.plan
    if not fraction:
        return context
    rows, groups = plan.rows["train"], context.prepared.groups
    labels = plan.labels[rows]
    parts = deal_folds(
        labels, rows if groups is None else groups[rows], round(1 / fraction), context.config.data.split_seed
    )
    held_out = parts == 0
    held_out &= np.isin(labels, labels[~held_out])
    return replace(context, plan=replace(plan, rows={**plan.rows, "train": rows[~held_out], "val": rows[held_out]}))
