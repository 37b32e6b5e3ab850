"""Loaders: the batches of one rank in the order of the sampling plan. The protocol, and the loader of this process.

The others: ray_loader.py (input tasks on any node), device_loader.py (the whole set in device memory) and
training/frozen_features.py (features in place of images). All give the same batches. Plain Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from animalclf.data.augment import augment_batch, evaluation_view
from animalclf.data.disk_cache import LocalShards
from animalclf.data.prepared_set import Prepared
from animalclf.data.sampler import Phase, SamplingPlan
from animalclf.data.shards import read_shard

Batch = dict[str, np.ndarray]
"""`image` uint8 (N, H, W, 3) RGB, `label` int64 (N,), `index` int64 (N,); `seconds` float32 (N, 2): the time to read
and to augment each image."""


class Loader(Protocol):
    """The batches of one rank, a pass at a time."""

    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]:
        """The batches of one pass, without empty ones. In training their number is the same on every rank."""
        ...


LoaderFactory = Callable[[SamplingPlan, Iterable[tuple[Phase, int]]], Loader]
"""Makes this rank's loader of a plan; the passes (phase, epoch) are requested in the order given."""


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Stored images by manifest row: the shards, and the shard and the row in it of every manifest row."""

    shards: Sequence[np.ndarray] | LocalShards
    shard: np.ndarray
    """int64 (rows,)."""
    row: np.ndarray
    """int64 (rows,)."""

    def views(self, index: np.ndarray) -> list[np.ndarray]:
        """The images `index`, each uint8 (S, S, 3), without a copy if the shards are in memory."""
        return [self.shards[s][r] for s, r in zip(self.shard[index], self.row[index], strict=True)]


def load_images(prepared: Prepared) -> StoredImages:
    """All stored images in this process's memory."""
    shards = [read_shard(path, prepared.stored_size)[0] for path in prepared.shard_paths()]
    return StoredImages(shards, prepared.manifest["shard"].to_numpy(), prepared.manifest["row"].to_numpy())


def make_batch(plan: SamplingPlan, images: StoredImages, phase: Phase, epoch: int, index: np.ndarray) -> Batch:
    """The batch of the manifest rows `index`: augmented in training, resized otherwise."""
    start = time.perf_counter()
    views = images.views(index)
    read_seconds = time.perf_counter() - start
    if phase != "train":
        image = evaluation_view(views, plan.input_size)
    elif plan.augment_on_device:
        image = np.stack(views)
    else:
        image = augment_batch(views, index, plan.augment, plan.seed, epoch, plan.input_size)
    augment_seconds = time.perf_counter() - start - read_seconds
    per_image = np.array([read_seconds, augment_seconds], np.float32) / max(len(index), 1)
    return {"image": image, "label": plan.labels[index], "index": index, "seconds": np.tile(per_image, (len(index), 1))}


class MemoryLoader:
    """Makes batches in this process, one after another: for `--local`, for passes that only copy images, for tests, and
    as the reference for the other loaders."""

    def __init__(self, plan: SamplingPlan, images: StoredImages, rank: int = 0, world_size: int = 1) -> None:
        self.plan, self.images, self.rank, self.world_size = plan, images, rank, world_size

    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]:
        for index in self.plan.batch_rows(phase, epoch, self.rank, self.world_size):
            if len(index):
                yield make_batch(self.plan, self.images, phase, epoch, index)
