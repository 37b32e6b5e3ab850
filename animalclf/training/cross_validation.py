"""Cross-validation (`train.folds`): one training for each fold, without its images, then the final one, on all images.

Each fold is a run in its own folder, folds/<number>, so that a resume continues in the fold that was interrupted. No
image of a fold is seen before its last epoch has ended: every fold, and the final model, uses its last epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from animalclf.data.folds import folded_rows, image_folds
from animalclf.predictions import class_probabilities
from animalclf.rows import EpochEnd, EpochRow, PhaseProgress, ProgressEvent, TrainingResult
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.training.context import TrainContext
from animalclf.training.distributed import on_all_ranks
from animalclf.training.final_eval import OutOfFold, ScoredRows, evaluate_scored, finish, score
from animalclf.training.frozen_features import FeatureLoader
from animalclf.training.known_scores import measured_distances
from animalclf.utils import storage

TrainOnce = Callable[[TrainContext, FeatureLoader | None], tuple[list[EpochRow], FeatureLoader | None]]
"""Trains all epochs of a context, on the features of a frozen base if they are known. Returns the history and the
features."""


def cross_validate(context: TrainContext, train_once: TrainOnce) -> TrainingResult:
    """Train each fold, then on all images. Returns the content of result.json: out-of-fold metrics of every image, by a
    model that was trained without its fold."""
    started, folds = time.time(), context.config.train.folds
    rows, fold = folded_rows(context.prepared), image_folds(context.prepared, context.config)
    scored, histories, features = [], [], None
    for number in range(folds):
        plan = replace(
            context.plan, rows={"train": rows[fold != number], "val": rows[fold == number], "test": rows[:0]}
        )
        run = fold_run(context.run, number)
        part = _with_part(replace(context, plan=plan, run=run, validate=False), f"fold {number + 1} of {folds}")
        stored = on_all_ranks(partial(_read_scored, part))
        if stored:
            histories += run.metrics()
        else:
            history, features = train_once(part, features)
            stored = _score_and_store(part, features)
            histories += history
        scored.append(stored)
    history, features = train_once(_with_part(context, "all images"), features)
    index = np.concatenate([part.index for part in scored])
    order = np.argsort(index)
    probabilities = np.concatenate([part.probabilities for part in scored])[order]
    distances = np.concatenate([part.distances for part in scored])[order]
    out_of_fold = OutOfFold(ScoredRows(index[order], probabilities, distances), fold)
    return finish(context, [*histories, *history], time.time() - started, features, out_of_fold)


def fold_run(run: Run, number: int) -> Run:
    """The folder of a fold, counted from 0."""
    return Run(run.url("folds", str(number)))


def _with_part(context: TrainContext, part: str) -> TrainContext:
    """A context whose progress events name the part of the training."""

    def report(event: ProgressEvent) -> None:
        context.report(replace(event, part=part) if isinstance(event, PhaseProgress | EpochEnd) else event)

    return replace(context, report=report)


def _score_and_store(context: TrainContext, features: FeatureLoader | None) -> ScoredRows:
    """The probabilities and distances of a trained fold's images, which rank 0 writes; then it removes the fold's
    checkpoints."""
    run, ranks = context.run, context.ranks
    model, _ = on_all_ranks(lambda: checkpoint.load_model(run.checkpoint("best"), ranks.device))
    distances = measured_distances(context, model, features)[1]
    scored = replace(score(context, model, "val", features), distances=distances)

    def write() -> None:
        if not ranks.rank:
            run.write_predictions("val", evaluate_scored(context, scored)[1].assign(distance=distances))
            for name in ("best", "last"):
                storage.remove(run.checkpoint(name))

    on_all_ranks(write)
    return scored


def _read_scored(context: TrainContext) -> ScoredRows | None:
    """The probabilities and distances of a fold that has ended; else None."""
    if not storage.exists(context.run.url("predictions", "val.parquet")):
        return None
    index = context.plan.rows["val"]
    table = context.run.predictions("val", context.classes).set_index("path")
    table = table.loc[context.prepared.manifest["path"].iloc[index]]
    if "distance" not in table:  # of a version without the score of unknown images
        table = table.assign(distance=np.nan)
    return ScoredRows(index, class_probabilities(table, context.classes), table["distance"].to_numpy(np.float32))
