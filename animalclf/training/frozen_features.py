"""Training a head on a frozen base: when nothing in the base trains and every epoch sees the same pixels, the base runs once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from animalclf.data.loader import Batch, Phase, Schedule
from animalclf.models.classifier import Classifier
from animalclf.training import loop
from animalclf.training.distributed import Place, gather


class FeatureFeed:
    """Batches whose "image" is the frozen base's features, float32 (N, F), kept in memory."""

    def __init__(self, schedule: Schedule, features: np.ndarray, position: np.ndarray, place: Place) -> None:
        self.schedule, self.features, self.position, self.place = schedule, features, position, place

    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]:
        for index in self.schedule.batch_rows(phase, epoch, self.place.rank, self.place.world):
            if len(index):
                yield {"image": self.features[self.position[index]], "label": self.schedule.labels[index], "index": index}


@torch.no_grad()
def feature_feed(
    model: Classifier, schedule: Schedule, make_feed: Callable[..., Any], place: Place, bf16: bool, on_progress: Callable[[dict[str, Any]], None]
) -> FeatureFeed:
    """Run the frozen base over all training and validation pictures, each rank over its share; every rank then holds all features."""
    rows = np.concatenate([schedule.rows["train"], schedule.rows["val"]])
    once = replace(schedule, rows={"val": rows})
    parts, indices = [], []
    clock, started = loop.Clock(), time.perf_counter()
    model.eval()

    def noted() -> Iterator[Batch]:
        for batch in make_feed(once, [("val", 0)]).batches("val", 0):
            indices.append(np.array(batch["index"]))
            yield batch

    for image, _ in loop.on_device(noted(), place.device, clock):
        with loop.autocast(place.device, bf16):
            parts.append(model.features(image).float().cpu().numpy())
        done = min(clock.pictures * place.world, len(rows))
        on_progress({"phase": "features", "done": done, "of": len(rows), "seconds": time.perf_counter() - started})
    pairs = [pair for share in gather(list(zip(indices, parts, strict=True))) for pair in share]
    index, features = np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])
    loop.same_count("features", len(index), len(rows))
    position = np.full(len(schedule.labels), -1, np.int64)
    position[index] = np.arange(len(index))
    return FeatureFeed(schedule, features, position, place)
