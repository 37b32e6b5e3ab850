"""Features of a run's own labelled images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from animalclf.config import Config
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.data.prepared_set import Prepared
from animalclf.data.sampler import sampling_plan
from animalclf.inference.labelled import predict_prepared
from animalclf.rows import PhaseProgress, ProgressEvent
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.training.checks import trains_on_features
from animalclf.training.context import TrainContext
from animalclf.training.distributed import RankContext
from animalclf.training.frozen_features import feature_loader
from animalclf.training.outputs import features_only
from animalclf.utils.progress import ProgressLine


def labelled_features(run: Run, prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """The manifest rows int64 (N,) of all images of the run, and what the last dense layer or the fitted heads of its
    model take of each, float32 (N, F): with fitted heads from the cache of the prepared set."""
    config = run.config()
    rows = {split: np.sort(rows) for split, rows in sampling_plan(prepared, config).rows.items() if len(rows)}
    if config.train.heads and trains_on_features(config):
        all_rows = np.sort(np.concatenate(list(rows.values())))
        return all_rows, frozen_features(run, config, prepared, all_rows).astype(np.float32)
    model, info = checkpoint.load_model(run.root)
    parts = [
        predict_prepared(model, info.classes, config, prepared, split, summary=features_only).summaries
        for split in rows
    ]
    return np.concatenate(list(rows.values())), np.concatenate([part for part in parts if part is not None])


def frozen_features(run: Run, config: Config, prepared: Prepared, rows: np.ndarray) -> np.ndarray:
    """Features float64 (N, F) of manifest rows by the run's frozen base: from the prepared set's cache, or computed."""
    ranks = RankContext(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    model, _ = checkpoint.load_model(run.root, ranks.device)
    if config.train.channels_last:
        model = model.to(memory_format=torch.channels_last)
    with ProgressLine() as line:

        def report(event: ProgressEvent) -> None:
            if isinstance(event, PhaseProgress):
                line.update("computing features", event.done, event.total)

        plan = replace(sampling_plan(prepared, config), rows={"train": rows, "val": rows[:0]})
        context = TrainContext(
            config, prepared, plan, run, ranks, lambda plan, _: MemoryLoader(plan, load_images(prepared)), report
        )
        loader = feature_loader(context, model)
    return loader.features[loader.position[rows]].reshape(len(rows), -1).astype(np.float64)
