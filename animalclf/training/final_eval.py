"""The end of a training: evaluate the best checkpoint on validation and test, calibrate it, write its probabilities and
result.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
from torch import nn

from animalclf.data.loader import Phase
from animalclf.errors import UserError
from animalclf.features.folds import deal_folds
from animalclf.features.known import FeatureDistances, fit_scorer
from animalclf.features.known_file import write_scorer
from animalclf.features.temperature import apply_temperature, cross_calibrate, fit_temperature, logits_of
from animalclf.metrics import from_probabilities, main_metrics
from animalclf.models.classifier import Classifier
from animalclf.predictions import OK, predictions_table
from animalclf.rows import EpochRow, Evaluation, FoldRow, TimeSpent, TrainingResult
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.training.best_epoch import selects_on_validation
from animalclf.training.context import TrainContext
from animalclf.training.distributed import all_gather, on_all_ranks
from animalclf.training.frozen_features import FeatureLoader
from animalclf.training.known_scores import measured_distances
from animalclf.training.outputs import model_outputs

CALIBRATION_FOLDS = 5


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """Class probabilities float (N, C) of the manifest rows `index` int64 (N,), ascending."""

    index: np.ndarray
    probabilities: np.ndarray
    distances: np.ndarray | None = None
    """Of the features to those of the training images, float32 (N,), of validation images; see known_scores.py."""


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Probabilities of all folded images, each by a model that was trained without its `fold` int64 (N,)."""

    scored: ScoredRows
    fold: np.ndarray


def finish(
    context: TrainContext,
    history: Sequence[EpochRow],
    seconds: float,
    features: FeatureLoader | None,
    out_of_fold: OutOfFold | None = None,
) -> TrainingResult:
    """Evaluate the best checkpoint over all ranks, each row once. With `features` of a frozen base, validation
    evaluates its head on them. `out_of_fold` takes the place of the validation images.

    The temperature that is stored is fitted on all validation (or folded) images; their own probabilities are
    cross-fitted. Fitted heads are calibrated within the training images, so that without folds nothing is fitted on
    validation. `seconds`: the training time of this process. Returns the content of result.json, which rank 0 writes.
    """
    run, ranks, rows = context.run, context.ranks, context.plan.rows
    model, info = on_all_ranks(lambda: checkpoint.load_model(run.checkpoint("best"), ranks.device))
    splits: list[Phase] = [split for split in ("val", "test") if len(rows[split])]
    scored = {"val": out_of_fold.scored} if out_of_fold else {}
    scored |= {split: score(context, model, split, features) for split in splits}
    if "val" in scored:
        feature_distances, held_out = measured_distances(context, model, features)
        if not out_of_fold:
            scored["val"] = replace(scored["val"], distances=held_out)
    fold, temperature = None, 1.0
    if out_of_fold:
        fold = out_of_fold.fold
    elif "val" in scored and not context.config.train.heads:
        index, groups = scored["val"].index, context.prepared.groups
        fold = validation_folds(context.plan.labels[index], None if groups is None else groups[index])
    if fold is not None:
        temperature = _calibrate(scored, context.plan.labels, fold)
    evaluations: dict[str, Evaluation] = {}
    tables: dict[str, pd.DataFrame] = {}
    for split, split_rows in scored.items():
        evaluations[split], tables[split] = evaluate_scored(context, split_rows)
    result = replace(
        _result(context, history, seconds, info.epoch, evaluations),
        temperature=temperature,
        folds=_fold_rows(context, out_of_fold, scored["val"]) if out_of_fold else None,
    )

    def write() -> None:
        if not ranks.rank:
            if "val" in scored:
                _write_scorer(run, feature_distances, scored["val"])
            for split, table in tables.items():
                run.write_predictions(split, table)
            run.write_result(result.to_dict())

    on_all_ranks(write)
    return result


def _write_scorer(run: Run, distances: FeatureDistances, val: ScoredRows) -> None:
    """Store the score of "none of these", from validation (or out-of-fold) distances and probabilities."""
    assert val.distances is not None
    measured = np.isfinite(val.distances)
    if measured.any():
        write_scorer(run, fit_scorer(distances, val.distances[measured], val.probabilities[measured]))


def _fold_rows(context: TrainContext, out_of_fold: OutOfFold, scored: ScoredRows) -> list[FoldRow]:
    """The metrics of each fold's images."""
    labels, rows = context.plan.labels[scored.index], []
    for number in np.unique(out_of_fold.fold):
        images = out_of_fold.fold == number
        evaluation = from_probabilities(scored.probabilities[images], labels[images], context.classes)
        rows.append(FoldRow(fold=int(number) + 1, rows=evaluation.rows, metrics=evaluation.metrics))
    return rows


def validation_folds(labels: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """The fold int64 (N,) of each validation image for the cross-fitted temperature, from class numbers int64 (N,) and
    groups of duplicates int64 (N,), if they are known."""
    return deal_folds(labels, np.arange(len(labels)) if groups is None else groups, CALIBRATION_FOLDS, seed=0)


def _calibrate(scored: dict[str, ScoredRows], labels: np.ndarray, fold: np.ndarray) -> float:
    """Calibrate the probabilities in `scored`, in place: validation by the temperatures of other folds (`fold` int64,
    of its images), test by that of all validation images, which is returned."""
    val = scored["val"]
    temperature = fit_temperature(logits_of(val.probabilities), labels[val.index])
    calibrated = cross_calibrate(val.probabilities, labels[val.index], fold).astype(np.float32)
    scored["val"] = replace(val, probabilities=calibrated)
    if test := scored.get("test"):
        scored["test"] = ScoredRows(test.index, apply_temperature(test.probabilities, temperature).astype(np.float32))
    return temperature


def _result(
    context: TrainContext,
    history: Sequence[EpochRow],
    seconds: float,
    best_epoch: int,
    evaluations: Mapping[str, Evaluation],
) -> TrainingResult:
    """The content of result.json, from all epochs and the evaluations of the splits."""
    train_seconds = sum(row.train_seconds for row in history)
    spent = {
        part.name: sum(getattr(row, f"{part.name}_seconds") or 0.0 for row in history) for part in fields(TimeSpent)
    }
    main_split = next(iter(evaluations), None)
    return TrainingResult(
        run=context.run.root,
        recipe=context.config.name,
        seed=context.config.seed,
        epochs=history[-1].epoch,
        best_epoch=best_epoch,
        classes=context.classes,
        workers=context.ranks.world_size,
        precision="bf16" if context.bf16 else "fp32",
        rows={split: len(index) for split, index in context.plan.rows.items()},
        seconds=sum(row.seconds for row in history),
        seconds_this_time=seconds,
        images_per_s=float(np.median([row.images_per_s for row in history])),
        time=TimeSpent(**spent),
        wait_fraction=sum(row.wait_fraction * row.train_seconds for row in history) / train_seconds,
        heads=history[-1].heads,
        selected_on="val" if "val" in evaluations and selects_on_validation(context.config) else "",
        calibration_error=evaluations["val"]["ece"] if "val" in evaluations else None,
        val=evaluations.get("val"),
        test=evaluations.get("test"),
        metrics=main_metrics(evaluations[main_split]) if main_split else {},
    )


def score(context: TrainContext, model: Classifier, split: Phase, features: FeatureLoader | None) -> ScoredRows:
    """The probabilities of a split, which all ranks compute together, on every rank. With `features` of a frozen base,
    validation evaluates its head on them."""
    network: nn.Module = model
    if features and split == "val":
        network, batches = model.head, features.batches(split, 0)
    else:
        batches = context.make_loader(context.plan, [(split, 0)]).batches(split, 0)
    ranks = all_gather(model_outputs(network, model.classes, batches, context.ranks.device, context.bf16))
    index, probabilities = np.concatenate([rank[0] for rank in ranks]), np.concatenate([rank[1] for rank in ranks])
    order = np.argsort(index)
    index, probabilities = index[order], probabilities[order]
    if not np.array_equal(index, np.sort(context.plan.rows[split])):
        raise RuntimeError(f"{split}: the evaluated rows are not the split's rows: this is a bug, please report it")
    if not np.isfinite(probabilities).all():
        raise UserError(
            f"{split}: the probabilities of the best epoch are NaN or infinite: the training diverged; lower optim.lr "
            f"(now {context.config.optim.lr:g}), and start a new run"
        )
    return ScoredRows(index, probabilities)


def evaluate_scored(context: TrainContext, scored: ScoredRows) -> tuple[Evaluation, pd.DataFrame]:
    """The metrics of a split and its table of predictions."""
    classes, index, rows = context.classes, scored.index, context.prepared.manifest.iloc[scored.index]
    groups = None if context.prepared.groups is None else context.prepared.groups[index]
    evaluation = from_probabilities(scored.probabilities, context.plan.labels[index], classes, groups)
    status = [OK] * len(rows)
    return evaluation, predictions_table(
        list(rows["path"]), classes, scored.probabilities, status, list(rows["label"]), groups
    )
