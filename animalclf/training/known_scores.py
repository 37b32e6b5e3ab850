"""The distances of "none of these" (features/known.py) that a training fits at its end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from animalclf.data.sampler import stratified_sample
from animalclf.features.known import FeatureDistances, fit_distances
from animalclf.models.classifier import Classifier
from animalclf.training.context import TrainContext
from animalclf.training.distributed import all_gather
from animalclf.training.frozen_features import FeatureLoader
from animalclf.training.outputs import features_only, model_outputs

MAX_IMAGES = 5_000
"""Training images that the distances are fitted on, and validation images that the threshold is selected on, at most:
more change neither, and cost a pass of the model."""


def measured_distances(
    context: TrainContext, model: Classifier, features: FeatureLoader | None
) -> tuple[FeatureDistances, np.ndarray]:
    """Distances fitted on the training images of the plan, on every rank; and those of each validation image, float32
    (N,) in the order of their rows, NaN beyond MAX_IMAGES. With `features` of a frozen base the head computes on
    them."""
    rows, labels = context.plan.rows, context.plan.labels
    train, val = (
        stratified_sample(split, labels[split], MAX_IMAGES, context.config.seed) if len(split) > MAX_IMAGES else split
        for split in (np.sort(rows["train"]), np.sort(rows["val"]))
    )
    both = np.concatenate([train, val])
    values = _features(context, model, features, both)
    distances = fit_distances(values[: len(train)], labels[train])
    held_out = np.full(len(rows["val"]), np.nan, np.float32)
    if len(val):
        held_out[np.isin(np.sort(rows["val"]), val)] = distances(values[len(train) :])
    return distances, held_out


def _features(context: TrainContext, model: Classifier, features: FeatureLoader | None, rows: np.ndarray) -> np.ndarray:
    """Penultimate features float32 (N, F) of the manifest rows int64 (N,), on every rank."""
    plan = replace(context.plan, rows={**context.plan.rows, "val": rows})
    if features:
        network, batches = model.head, features.with_plan(plan).batches("val", 0)
    else:
        network, batches = model, context.make_loader(plan, [("val", 0)]).batches("val", 0)
    own = model_outputs(network, model.classes, batches, context.ranks.device, context.bf16, features_only)
    ranks = [rank for rank in all_gather((own.rows, own.summaries)) if len(rank[0])]
    order = np.argsort(np.concatenate([rank[0] for rank in ranks]))
    values: np.ndarray = np.concatenate([rank[1] for rank in ranks])[order]
    return values[np.argsort(np.argsort(rows))]
