"""The end of a training: evaluate the best checkpoint on validation and test, write its probabilities and
result.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields

import numpy as np
import pandas as pd
import torch
from torch import nn

from animalclf.data.loader import Batch, Phase
from animalclf.errors import UserError
from animalclf.metrics import from_probabilities, main_metrics
from animalclf.predictions import OK, predictions_table
from animalclf.rows import EpochRow, Evaluation, TimeSpent, TrainingResult
from animalclf.training import checkpoint, loop
from animalclf.training.context import TrainContext
from animalclf.training.distributed import all_gather, on_all_ranks
from animalclf.training.frozen_features import FeatureLoader, with_recorded_rows


def finish(
    context: TrainContext, history: Sequence[EpochRow], seconds: float, features: FeatureLoader | None
) -> TrainingResult:
    """Evaluate the best checkpoint over all ranks, each row once. With `features` of a frozen base, validation
    evaluates its head on them.

    `seconds`: the training time of this process. Returns the content of result.json, which rank 0 writes.
    """
    run, ranks, rows = context.run, context.ranks, context.plan.rows
    model, info = on_all_ranks(lambda: checkpoint.load_model(run.checkpoint("best"), ranks.device))
    splits: list[Phase] = [split for split in ("val", "test") if len(rows[split])]
    evaluations: dict[str, Evaluation] = {}
    tables: dict[str, pd.DataFrame] = {}
    for split in splits:
        network: nn.Module = model
        if features and split == "val":
            network, batches = model.head, features.batches(split, 0)
        else:
            batches = context.make_loader(context.plan, [(split, 0)]).batches(split, 0)
        index, probabilities = predict(network, model.classes, batches, ranks.device, context.bf16)
        evaluations[split], tables[split] = _evaluate(context, split, index, probabilities)
    result = _result(context, history, seconds, info.epoch, evaluations)

    def write() -> None:
        if not ranks.rank:
            for split, table in tables.items():
                run.write_predictions(split, table)
            run.write_result(result.to_dict())

    on_all_ranks(write)
    return result


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
        val=evaluations.get("val"),
        test=evaluations.get("test"),
        metrics=main_metrics(evaluations[main_split]) if main_split else {},
    )


def _evaluate(
    context: TrainContext, split: str, index: np.ndarray, probabilities: np.ndarray
) -> tuple[Evaluation, pd.DataFrame]:
    """The metrics of a split and its table of predictions, from this rank's manifest rows int64 (N,) and
    probabilities float32 (N, classes)."""
    ranks = all_gather((index, probabilities))
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
    classes, rows = context.classes, context.prepared.manifest.iloc[index]
    groups = None if context.prepared.groups is None else context.prepared.groups[index]
    evaluation = from_probabilities(probabilities, context.plan.labels[index], classes, groups)
    status = [OK] * len(rows)
    return evaluation, predictions_table(
        list(rows["path"]), classes, probabilities, status, list(rows["label"]), groups
    )


@torch.no_grad()
def predict(
    network: nn.Module, classes: int, batches: Iterator[Batch], device: torch.device, bf16: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Manifest rows int64 (N,) and class probabilities float32 (N, classes) of this rank's batches."""
    indices, parts = [np.empty(0, np.int64)], [torch.empty((0, classes), device=device)]
    for image, _ in loop.on_device(with_recorded_rows(batches, indices), device, loop.Clock()):
        with loop.autocast(device, bf16):
            parts.append(network(image).float().softmax(1))
    return np.concatenate(indices), torch.cat(parts).cpu().numpy()
