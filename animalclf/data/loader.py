"""Batches of one rank in the order of the plan, from pictures in memory. Plain Python: the Ray edge (ray_loader.py) gives the same batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from animalclf.config import Augment, Config
from animalclf.data import sampler
from animalclf.data.augment import augment_batch, evaluation_view
from animalclf.data.disk_cache import LocalShards
from animalclf.data.prepared_set import Prepared, read_shard

Phase = Literal["train", "val", "test"]
# image uint8 (N, H, W, 3) RGB, label int64 (N,), index int64 (N,); seconds float32 (N, 2): what each picture took to read and to augment
Batch = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Stored pictures by manifest row: the shards, and for every manifest row its shard and its row there."""

    shards: Sequence[np.ndarray] | LocalShards
    shard: np.ndarray
    row: np.ndarray

    def views(self, index: np.ndarray) -> list[np.ndarray]:
        """The pictures `index`, each uint8 (S, S, 3), without a copy where the shards are in memory."""
        return [self.shards[s][r] for s, r in zip(self.shard[index], self.row[index], strict=True)]


@dataclass(frozen=True, eq=False)
class Schedule:
    """Everything that decides which pictures stand in which batch, and how they are seen."""

    rows: dict[str, np.ndarray]  # split -> int64 manifest rows
    labels: np.ndarray  # int64, of every manifest row
    batch_size: int
    balance: str
    augment: Augment
    input_size: int
    seed: int
    augment_later: bool = False  # training batches hold the stored pictures, and the training device augments them (augment/torch_form.py)

    def order(self, phase: Phase, epoch: int) -> np.ndarray:
        """Manifest rows of the phase in the order they are seen (int64)."""
        return _train_order(self, epoch) if phase == "train" else self.rows[phase]

    def steps(self, phase: Phase) -> int:
        return sampler.steps_in(len(self.rows[phase]), self.batch_size)

    def step_sizes(self, phase: Phase) -> np.ndarray:
        """Pictures of each step over all ranks, int64 (steps,)."""
        return np.diff(sampler.cuts(len(self.rows[phase]), self.batch_size, 1), axis=1)[:, 0]

    def batch_rows(self, phase: Phase, epoch: int, rank: int, world: int) -> list[np.ndarray]:
        """The manifest rows of each step of this rank; a validation step may be empty where rows are fewer than ranks."""
        order, cuts = self.order(phase, epoch), sampler.cuts(len(self.rows[phase]), self.batch_size, world)
        return [order[start:stop] for start, stop in cuts[:, rank : rank + 2]]

    def make(self, pictures: Pictures, phase: Phase, epoch: int, index: np.ndarray) -> Batch:
        """The batch of the manifest rows `index`: augmented in training, plain otherwise."""
        started = time.perf_counter()
        views = pictures.views(index)
        read = time.perf_counter()
        if phase != "train":
            image = evaluation_view(views, self.input_size)
        elif self.augment_later:
            image = np.stack(views)
        else:
            image = augment_batch(views, index, self.augment, self.seed, epoch, self.input_size)
        each = np.array([read - started, time.perf_counter() - read], np.float32) / max(len(index), 1)
        return {"image": image, "label": self.labels[index], "index": index, "seconds": np.tile(each, (len(index), 1))}


@lru_cache(maxsize=2)
def _train_order(schedule: Schedule, epoch: int) -> np.ndarray:
    rows = schedule.rows["train"]
    return sampler.epoch_order(rows, schedule.labels[rows], schedule.balance, schedule.seed, epoch)


def make_schedule(prepared: Prepared, config: Config, augment_later: bool = False) -> Schedule:
    """The schedule of a training on a prepared set; with `data.limit`, of that many pictures spread over splits and classes."""
    rows = {split: prepared.rows(split) for split in ("train", "val", "test")}
    limit, total, seed = config.data.limit, sum(map(len, rows.values())), config.data.split_seed  # the same pictures for all seeds of training
    if 0 < limit < total:
        rows = {split: sampler.spread(mine, prepared.labels[mine], round(limit * len(mine) / total), seed) for split, mine in rows.items()}
    train, size = config.train, config.model.input_size
    return Schedule(rows, prepared.labels, train.batch_size, train.balance, config.augment, size, config.seed, augment_later)


def load_pictures(prepared: Prepared) -> Pictures:
    """All stored pictures in this process's memory."""
    shards = [read_shard(path, prepared.stored_size)[0] for path in prepared.shard_paths()]
    return Pictures(shards, prepared.manifest["shard"].to_numpy(), prepared.manifest["row"].to_numpy())


class MemoryFeed:
    """Batches made in this process, one after another: for `--local`, for tests, and as the yardstick of the Ray feed."""

    def __init__(self, schedule: Schedule, pictures: Pictures, rank: int = 0, world: int = 1) -> None:
        self.schedule, self.pictures, self.rank, self.world = schedule, pictures, rank, world

    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]:
        """The batches of one pass; their number is the same on every rank in training."""
        for index in self.schedule.batch_rows(phase, epoch, self.rank, self.world):
            if len(index):
                yield self.schedule.make(self.pictures, phase, epoch, index)
