"""Sampling: the order of an epoch as a pure function of (seed, epoch), cut into steps and ranks. Plain NumPy.

Every rank computes the same plan, so ranks agree on the number of steps before the epoch starts, and a global batch
holds the same images at any world size. Each training row is seen exactly once per epoch (or, with balanced sampling,
each class equally often).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from animalclf.config import Augment, Config
from animalclf.data.folds import folded_rows
from animalclf.data.prepared_set import Prepared

Phase = Literal["train", "val", "test"]


@dataclass(frozen=True, eq=False)
class SamplingPlan:
    """Which images are in which batch, and how they are augmented."""

    rows: dict[str, np.ndarray]
    """Split -> manifest rows, int64."""
    labels: np.ndarray
    """Class number of every manifest row, int64."""
    batch_size: int
    """Global: over all ranks."""
    balance: str
    augment: Augment
    input_size: int
    seed: int
    augment_on_device: bool = False
    """Training batches hold the stored images, and the training device augments them (augment/torch_form.py)."""

    def order(self, phase: Phase, epoch: int) -> np.ndarray:
        """Manifest rows of the phase in the order they are seen (int64)."""
        return _train_order(self, epoch) if phase == "train" else self.rows[phase]

    def steps(self, phase: Phase) -> int:
        """Steps of one pass."""
        return steps_of(len(self.rows[phase]), self.batch_size)

    def step_sizes(self, phase: Phase) -> np.ndarray:
        """Images of each step over all ranks, int64 (steps,)."""
        return np.diff(batch_edges(len(self.rows[phase]), self.batch_size, 1), axis=1)[:, 0]

    def batch_rows(self, phase: Phase, epoch: int, rank: int, world_size: int) -> list[np.ndarray]:
        """The manifest rows int64 of each step of this rank. A validation step is empty if there are fewer rows than
        ranks."""
        order, edges = self.order(phase, epoch), batch_edges(len(self.rows[phase]), self.batch_size, world_size)
        return [order[start:stop] for start, stop in edges[:, rank : rank + 2]]


@lru_cache(maxsize=2)
def _train_order(plan: SamplingPlan, epoch: int) -> np.ndarray:
    rows = plan.rows["train"]
    return epoch_order(rows, plan.labels[rows], plan.balance, plan.seed, epoch)


def sampling_plan(prepared: Prepared, config: Config, augment_on_device: bool = False) -> SamplingPlan:
    """The plan of a training on a prepared set; with `data.limit`, of that many images spread over splits and classes;
    with `train.folds`, of the training on all images after the folds."""
    rows = {split: prepared.rows(split) for split in ("train", "val", "test")}
    if config.train.folds:
        rows |= {"train": folded_rows(prepared), "val": rows["val"][:0]}
    limit, total = config.data.limit, sum(map(len, rows.values()))
    if 0 < limit < total:
        rows = {
            # split_seed, so that all training seeds use the same images
            split: stratified_sample(
                split_rows, prepared.labels[split_rows], round(limit * len(split_rows) / total), config.data.split_seed
            )
            for split, split_rows in rows.items()
        }
    train, size = config.train, config.view_size
    return SamplingPlan(
        rows, prepared.labels, train.batch_size, train.balance, config.augment, size, config.seed, augment_on_device
    )


def epoch_order(rows: np.ndarray, labels: np.ndarray, balance: str, seed: int, epoch: int) -> np.ndarray:
    """The training rows of one epoch in their order, int64 (len(rows),).

    `rows`: int64 manifest rows of the training split; `labels`: their class numbers. With balance "sampling" every
    class that occurs is drawn equally often (within one image). A class's images are drawn in shuffled rounds, so that
    no image is repeated before all images of its class are drawn. Otherwise every row is drawn once.
    """
    generator = np.random.default_rng([seed, epoch, 0x706C616E])
    if balance != "sampling":
        return generator.permutation(rows)
    classes = np.unique(labels)
    count, remainder = divmod(len(rows), len(classes))
    extra_classes = set(generator.permutation(classes)[:remainder].tolist())
    parts = []
    for label in classes:
        class_rows = rows[labels == label]
        draws = count + (label in extra_classes)
        rounds = -(-draws // len(class_rows))
        if draws:
            parts.append(np.concatenate([generator.permutation(class_rows) for _ in range(rounds)])[:draws])
    return generator.permutation(np.concatenate(parts))


def steps_of(rows: int, batch_size: int) -> int:
    """Optimizer steps of an epoch of `rows` images: no image is dropped."""
    return -(-rows // batch_size)


def batch_edges(rows: int, batch_size: int, world_size: int) -> np.ndarray:
    """The cuts of the epoch's order, int64 (steps, world_size + 1): in step s, rank r has order[c[s, r]:c[s, r + 1]].

    The rows are spread evenly over the steps and then over the ranks (sizes differ by at most one), instead of a small
    last batch: BatchNorm never sees a batch of a few images, and every rank has an image while rows >= world_size.
    """
    steps = steps_of(rows, batch_size)
    edges = np.arange(steps + 1) * rows // steps
    sizes = np.diff(edges)
    rank_edges = np.arange(world_size + 1)[None, :] * sizes[:, None] // world_size
    return edges[:-1, None] + rank_edges


def stratified_sample(rows: np.ndarray, labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """About `count` of `rows`, ascending, in proportion to the classes and at least one of each: for smoke runs
    (`--limit`)."""
    generator = np.random.default_rng([seed, 0x6C696D])
    parts = []
    for label in np.unique(labels):
        class_rows = generator.permutation(rows[labels == label])
        parts.append(class_rows[: max(1, round(count * len(class_rows) / len(rows)))])
    return np.sort(np.concatenate(parts)) if parts else rows[:0]
