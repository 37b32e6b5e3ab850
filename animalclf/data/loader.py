"""Loaders: the batches of one rank in the order of the sampling plan. The protocol, and the loader that makes batches in this process.

The others: ray_loader.py (input tasks on any node), device_loader.py (the whole set in device memory) and training/frozen_features.py (features in
place of images). All give the same batches. Plain Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from animalclf.data.augment import augment_batch, evaluation_view
from animalclf.data.disk_cache import LocalShards
from animalclf.data.prepared_set import Prepared, read_shard
from animalclf.data.sampler import Phase, SamplingPlan

# image uint8 (N, H, W, 3) RGB, label int64 (N,), index int64 (N,); seconds float32 (N, 2): what each image took to read and to augment
Batch = dict[str, np.ndarray]


class Loader(Protocol):
    """The batches of one rank, a pass at a time."""

    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]:
        """The batches of one pass, without empty ones. In training their number is the same on every rank."""
        ...


LoaderFactory = Callable[[SamplingPlan, Sequence[tuple[Phase, int]]], Loader]
"""Makes this rank's loader of a plan; the passes (phase, epoch) are asked for in the order given."""


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Stored images by manifest row: the shards, and for every manifest row its shard and its row there."""

    shards: Sequence[np.ndarray] | LocalShards
    shard: np.ndarray
    row: np.ndarray

    def views(self, index: np.ndarray) -> list[np.ndarray]:
        """The images `index`, each uint8 (S, S, 3), without a copy where the shards are in memory."""
        return [self.shards[s][r] for s, r in zip(self.shard[index], self.row[index], strict=True)]


def load_images(prepared: Prepared) -> StoredImages:
    """All stored images in this process's memory."""
    shards = [read_shard(path, prepared.stored_size)[0] for path in prepared.shard_paths()]
    return StoredImages(shards, prepared.manifest["shard"].to_numpy(), prepared.manifest["row"].to_numpy())


def make_batch(plan: SamplingPlan, images: StoredImages, phase: Phase, epoch: int, index: np.ndarray) -> Batch:
    """The batch of the manifest rows `index`: augmented in training, plain otherwise."""
    started = time.perf_counter()
    views = images.views(index)
    read = time.perf_counter()
    if phase != "train":
        image = evaluation_view(views, plan.input_size)
    elif plan.augment_on_device:
        image = np.stack(views)
    else:
        image = augment_batch(views, index, plan.augment, plan.seed, epoch, plan.input_size)
    each = np.array([read - started, time.perf_counter() - read], np.float32) / max(len(index), 1)
    return {"image": image, "label": plan.labels[index], "index": index, "seconds": np.tile(each, (len(index), 1))}


class MemoryLoader:
    """Makes batches in this process, one after another: for `--local`, for tests, and as the reference of the other loaders."""

    def __init__(self, plan: SamplingPlan, images: StoredImages, rank: int = 0, world_size: int = 1) -> None:
        self.plan, self.images, self.rank, self.world_size = plan, images, rank, world_size

    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]:
        for index in self.plan.batch_rows(phase, epoch, self.rank, self.world_size):
            if len(index):
                yield make_batch(self.plan, self.images, phase, epoch, index)
