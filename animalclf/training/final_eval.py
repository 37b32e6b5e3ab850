"""The end of a training: the best checkpoint evaluated on validation and test, probabilities kept, result.json written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from animalclf.config import Config
from animalclf.data.loader import Batch, Phase, Schedule
from animalclf.data.prepared_set import Prepared
from animalclf.metrics import from_probabilities, main_metrics
from animalclf.predictions import OK, predictions_table
from animalclf.runs import Run
from animalclf.training import checkpoint, loop
from animalclf.training.distributed import Place, gather, together
from animalclf.training.frozen_features import FeatureFeed

PARTS = ("features", "read", "augment", "wait", "handover", "step", "validate", "keep")  # of an epoch's time, as metrics.jsonl has them


def finish(
    config: Config,
    prepared: Prepared,
    schedule: Schedule,
    run: Run,
    make_feed: Callable[..., Any],
    place: Place,
    history: list[dict[str, Any]],
    trained_for: float,
    kept: FeatureFeed | None,
) -> dict[str, Any]:
    """Evaluate the best checkpoint over all ranks, each row once; where the features of a frozen base are `kept`, its head on those of validation.
    Returns the content of result.json, which rank 0 writes."""
    bf16 = loop.choose_bf16(config.train.precision, place.device)
    model, about = together(lambda: checkpoint.load_model(run.checkpoint("best"), place.device))
    trained = sum(row["train_seconds"] for row in history)
    result: dict[str, Any] = {
        "run": run.root,
        "recipe": config.name,
        "seed": config.seed,
        "epochs": history[-1]["epoch"],
        "best_epoch": about["epoch"],
        "classes": prepared.classes,
        "workers": place.world,
        "precision": "bf16" if bf16 else "fp32",
        "rows": {split: len(rows) for split, rows in schedule.rows.items()},
        "seconds": sum(row["seconds"] for row in history),
        "seconds_this_time": trained_for,  # this process, without the final evaluation
        "pictures_per_s": float(np.median([row["pictures_per_s"] for row in history])),
        "time": {part: sum(row.get(f"{part}_seconds", 0.0) for row in history) for part in PARTS},
        "wait_share": sum(row["wait_share"] * row["train_seconds"] for row in history) / trained,
    }
    splits: list[Phase] = [split for split in ("val", "test") if len(schedule.rows[split])]
    evaluations, tables = {}, {}
    for split in splits:
        network: nn.Module = model
        if kept and split == "val":
            network, batches = model.head, kept.batches(split, 0)
        else:
            batches = make_feed(schedule, [(split, 0)]).batches(split, 0)
        shares = gather(predict(network, model.classes, batches, place.device, bf16))
        index, probabilities = np.concatenate([share[0] for share in shares]), np.concatenate([share[1] for share in shares])
        order = np.argsort(index)
        index, probabilities = index[order], probabilities[order]
        if not np.array_equal(index, np.sort(schedule.rows[split])):
            raise RuntimeError(f"{split}: the evaluated rows are not the split's rows: this is a bug, please report it")
        evaluations[split] = from_probabilities(probabilities, schedule.labels[index], prepared.classes)
        result[split] = evaluations[split].to_dict()
        rows = prepared.manifest.iloc[index]
        tables[split] = predictions_table(list(rows["path"]), prepared.classes, probabilities, [OK] * len(rows), list(rows["label"]))
    if splits:
        result |= main_metrics(evaluations[splits[0]])

    def write() -> None:
        if place.rank == 0:
            for split, table in tables.items():
                run.write_predictions(split, table)
            run.write_result(result)

    together(write)
    return result


@torch.no_grad()
def predict(network: nn.Module, classes: int, batches: Iterator[Batch], device: torch.device, bf16: bool) -> tuple[np.ndarray, np.ndarray]:
    """Manifest rows int64 (N,) and class probabilities float32 (N, classes) of this rank's batches."""
    indices, parts = [np.empty(0, np.int64)], [np.empty((0, classes), np.float32)]

    def noted() -> Iterator[Batch]:
        for batch in batches:
            indices.append(np.array(batch["index"]))
            yield batch

    for image, _ in loop.on_device(noted(), device, loop.Clock()):
        with loop.autocast(device, bf16):
            parts.append(network(image).float().softmax(1).cpu().numpy())
    return np.concatenate(indices), np.concatenate(parts)
