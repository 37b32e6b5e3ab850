"""Training a head on a frozen base: when nothing in the base trains and every epoch sees the same pixels, the base runs
once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from animalclf.data.loader import Batch
from animalclf.data.sampler import Phase, SamplingPlan
from animalclf.models.classifier import Classifier
from animalclf.rows import PhaseProgress
from animalclf.training import loop
from animalclf.training.context import TrainContext
from animalclf.training.distributed import RankContext, all_gather


class FeatureLoader:
    """Batches whose "image" is the frozen base's features, float32 (N, F), from memory."""

    def __init__(self, plan: SamplingPlan, features: np.ndarray, position: np.ndarray, ranks: RankContext) -> None:
        """`features` float32 (images, F); `position` int64 (manifest rows,): the place of each row's features among
        them."""
        self.plan, self.features, self.position, self.ranks = plan, features, position, ranks

    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]:
        """This rank's batches of one pass."""
        for index in self.plan.batch_rows(phase, epoch, self.ranks.rank, self.ranks.world_size):
            if len(index):
                yield {"image": self.features[self.position[index]], "label": self.plan.labels[index], "index": index}


@torch.no_grad()
def feature_loader(context: TrainContext, model: Classifier) -> FeatureLoader:
    """Run the frozen base once over all training and validation images, each rank over its part; then every rank has
    all features."""
    plan, ranks, bf16 = context.plan, context.ranks, context.bf16
    rows = np.concatenate([plan.rows["train"], plan.rows["val"]])
    parts: list[np.ndarray] = []
    indices: list[np.ndarray] = []
    clock, started = loop.Clock(), time.perf_counter()
    model.eval()
    batches = context.make_loader(replace(plan, rows={"val": rows}), [("val", 0)]).batches("val", 0)
    for image, _ in loop.on_device(recorded_rows(batches, indices), ranks.device, clock):
        with loop.autocast(ranks.device, bf16):
            parts.append(model.features(image).float().cpu().numpy())
        done = min(clock.images * ranks.world_size, len(rows))
        context.report(PhaseProgress("features", done, len(rows), time.perf_counter() - started))
    pairs = [pair for rank_pairs in all_gather(list(zip(indices, parts, strict=True))) for pair in rank_pairs]
    index, features = np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])
    loop.same_count("features", len(index), len(rows))
    position = np.full(len(plan.labels), -1, np.int64)
    position[index] = np.arange(len(index))
    return FeatureLoader(plan, features, position, ranks)


def recorded_rows(batches: Iterator[Batch], indices: list[np.ndarray]) -> Iterator[Batch]:
    """`batches`; the manifest rows of each (int64) are appended to `indices` as it passes."""
    for batch in batches:
        indices.append(np.array(batch["index"]))
        yield batch
