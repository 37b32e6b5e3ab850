"""Heads fitted on the features of a frozen base (`train.heads`): the training of such a run, in a single epoch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from animalclf.config import Config
from animalclf.data.augment import is_identity
from animalclf.errors import UserError
from animalclf.features.folds import deal_folds
from animalclf.features.heads import HEADS, FittedHead, TrainingSet
from animalclf.models.classifier import Classifier
from animalclf.models.fitted_heads import count_numbers, module_of
from animalclf.rows import HeadRow, PhaseProgress
from animalclf.training.context import TrainContext
from animalclf.training.distributed import all_gather, on_all_ranks
from animalclf.training.frozen_features import FeatureLoader, feature_loader
from animalclf.training.loop import Clock, TrainMetrics

INNER_FOLDS = 4


class Fitting(NamedTuple):
    """Metrics of the training images out of fold, the time, and the heads."""

    metrics: TrainMetrics
    clock: Clock
    heads: list[HeadRow]


def check_frozen_base(config: Config, model: Classifier) -> None:
    """Raise UserError for an unknown head, and for settings under which the features of an image change although
    train.heads or data.resize=keep need them."""
    for kind in config.train.heads:
        HEADS.get(kind)
    settings = [f"train.heads={','.join(config.train.heads)}"] if config.train.heads else []
    settings += ["data.resize=keep"] if config.keeps_shape else []
    if settings and not (model.frozen_features and is_identity(config.augment)):
        raise UserError(
            f"{' and '.join(settings)}: needs features that do not change; set model.trainable=head and no "
            "augmentation, as the recipe quick does"
        )
    if not config.train.heads:
        return
    for key, value, required in (("train.epochs", config.train.epochs, 1), ("optim.ema", config.optim.ema, 0)):
        if value != required:
            raise UserError(f"train.heads: heads are fitted once, not in steps; set {key}={required}, not {value:g}")


def fit_heads(context: TrainContext, model: Classifier, features: FeatureLoader) -> Fitting:
    """Fit the heads of `train.heads` on the features of the training images; they become the head of `model`."""
    from animalclf.features.fitting import mean_log_loss, mean_of_heads  # imports SciPy: a third of a second

    started = time.perf_counter()
    heads, training, present = _fit_on_features(context, features, context.config.train.heads)
    module = module_of(heads, present, model.classes).to(context.ranks.device)
    model.head = module
    rows, labels = context.plan.rows["train"], training.labels
    log_probabilities = mean_of_heads([head.log_probabilities for head in heads])
    metrics = TrainMetrics(
        loss=mean_log_loss(log_probabilities, labels, training.weights),
        accuracy=float((log_probabilities.argmax(1) == labels).mean()),
        rows=len(rows),
    )
    numbers = {kind: count_numbers(head) for kind, head in module.items()}
    head_rows = [
        HeadRow(head.kind, dict(head.settings), head.temperature, head.log_loss, numbers[head.kind]) for head in heads
    ]
    return Fitting(metrics, Clock(total=time.perf_counter() - started, images=len(rows)), head_rows)


@torch.no_grad()
def start_from_fitted_head(context: TrainContext, model: Classifier) -> None:
    """Set the dense layer of the head to logistic regression (for very many images LDA) on the features that the base
    computes now of the training images: LP-FT. Every rank sets the same."""
    usable = HEADS.get("logistic").fits(len(context.plan.rows["train"]), model.classes)
    kind = "logistic" if usable else "lda"
    heads, _, present = _fit_on_features(context, feature_loader(context, model), [kind])
    fitted = module_of(heads, present, model.classes)[kind]
    layer = model.head.get_submodule("logits")
    for name in ("weight", "bias"):
        layer.get_parameter(name).copy_(fitted.get_buffer(name) / fitted.get_buffer("temperature"))


def _fit_on_features(
    context: TrainContext, features: FeatureLoader, kinds: Sequence[str]
) -> tuple[list[FittedHead], TrainingSet, np.ndarray]:
    """Heads of `kinds` that fit the number of images, on every rank; what they are fitted on; and the classes that
    occur in it, int64."""
    rows, plan = context.plan.rows["train"], context.plan
    inputs = features.features[features.position[rows]].reshape(len(rows), -1).astype(np.float64)
    present, labels = np.unique(plan.labels[rows], return_inverse=True)
    if len(present) < 2:
        raise UserError("the training images are all of one class; a classifier needs at least two")
    training = TrainingSet(inputs, labels, image_weights(labels, context.config.train.balance), len(present))
    fitted = on_all_ranks(lambda: None if context.ranks.rank else _fit(context, training, rows, kinds))
    return all_gather(fitted)[0], training, present


def _fit(context: TrainContext, training: TrainingSet, rows: np.ndarray, kinds: Sequence[str]) -> list[FittedHead]:
    from animalclf.features.fitting import fit_head

    images = len(rows)
    usable = [kind for kind in kinds if HEADS.get(kind).fits(images, training.classes)]
    if not usable:
        raise UserError(
            f"train.heads={','.join(kinds)}: {images:,} training images of {training.classes} classes are too many for "
            "it; add lda"
        )
    groups = rows if context.prepared.groups is None else context.prepared.groups[rows]
    folds = deal_folds(training.labels, groups, INNER_FOLDS, context.config.seed)
    heads, started = [], time.perf_counter()
    with threadpool_limits(torch.get_num_threads()):  # Ray sets OMP_NUM_THREADS=1
        for number, kind in enumerate(usable):
            done = number * images // len(usable)
            context.report(PhaseProgress("heads", done, images, time.perf_counter() - started))
            heads.append(fit_head(kind, training, folds))
    return heads


def image_weights(labels: np.ndarray, balance: str) -> np.ndarray:
    """Weights of the images, float (N,), with a mean of 1: equal, or (any balancing) each class with the same sum."""
    if balance == "none":
        return np.ones(len(labels))
    counts = np.bincount(labels)
    return len(labels) / (len(counts) * counts[labels])
