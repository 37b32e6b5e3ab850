"""Cached features of a frozen base: when nothing in the base trains and nothing is augmented, the base runs once, and
the epochs train the head on its features."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from animalclf.data.augment.torch_form import to_device
from animalclf.data.loader import Batch
from animalclf.data.sampler import Phase, SamplingPlan
from animalclf.models.classifier import Classifier
from animalclf.rows import PhaseProgress
from animalclf.training import loop
from animalclf.training.context import TrainContext
from animalclf.training.distributed import RankContext, all_gather
from animalclf.training.feature_cache import Features, cache_of
from animalclf.utils.canvas import sides_on_canvas

# Features are copied to the host in chunks of this size: a copy after every batch would leave the GPU idle.
CHUNK_BYTES = 2**28
GPU_BATCH = 256  # minimum images in a batch on a GPU; on a CPU it is the recipe's batch size
SMALL_HEAD = 100_000  # parameters


class FeatureLoader:
    """Batches whose "image" is the frozen base's features, float32 (N, F), from memory: the GPU's, if they fill at
    most an eighth of it."""

    def __init__(self, plan: SamplingPlan, features: np.ndarray, position: np.ndarray, ranks: RankContext) -> None:
        """`features` float32 (images, F); `position` int64 (manifest rows,): the index of each manifest row in
        `features`, -1 for rows without features."""
        self.plan, self.features, self.position, self.ranks = plan, features, position, ranks
        self.on_device: tuple[torch.Tensor, torch.Tensor] | None = None
        if ranks.device.type == "cuda" and features.nbytes * 8 < torch.cuda.mem_get_info(ranks.device)[0]:
            self.on_device = torch.from_numpy(features).to(ranks.device), torch.tensor(plan.labels, device=ranks.device)

    def with_plan(self, plan: SamplingPlan) -> FeatureLoader:
        """A loader of the same features in the batches of another plan."""
        loader = copy.copy(self)
        loader.plan = plan
        return loader

    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]:
        """This rank's batches of one pass."""
        batches = self.plan.batch_rows(phase, epoch, self.ranks.rank, self.ranks.world_size)
        if self.on_device and batches:
            rows, start = np.concatenate(batches), 0
            features, labels = (
                table[to_device(index, table.device)]
                for table, index in zip(self.on_device, (self.position[rows], rows), strict=True)
            )
        for index in batches:
            if len(index) and self.on_device:
                part = slice(start, start := start + len(index))
                yield {"image": features[part], "label": labels[part], "index": index}  # type: ignore[dict-item]
            elif len(index):
                yield {"image": self.features[self.position[index]], "label": self.plan.labels[index], "index": index}


@torch.no_grad()
def feature_loader(context: TrainContext, model: Classifier) -> FeatureLoader:
    """The features of the frozen base of all training and validation images, on every rank: from the prepared set's
    cache, and of the images that it lacks computed, each rank over its part, and stored."""
    plan, ranks = context.plan, context.ranks
    rows = np.concatenate([plan.rows["train"], plan.rows["val"]])
    if context.config.train.cache_features and not context.config.train.cached_views:  # whose maps are rounded
        features = _features_from_cache(context, model, rows)
    else:
        features = _compute(context, model, rows)
    return FeatureLoader(plan, features.values, features.position(len(plan.labels)), ranks)


def _features_from_cache(context: TrainContext, model: Classifier, rows: np.ndarray) -> Features:
    """At least the manifest rows `rows`, int64 (N,), from the cache or computed and stored there."""
    cache, is_first = cache_of(context, model), not context.ranks.rank
    with cache.lock() if is_first else contextlib.nullcontext():
        cached: Features | None = all_gather(cache.read() if is_first else None)[0]
        missing = np.setdiff1d(rows, cached.index) if cached else rows
        if cached and not len(missing):
            return cached
        features = _compute(context, model, missing)
        if cached:
            features = cached.concatenate(features)
        if is_first:
            cache.write(features)
    return features


def _compute(context: TrainContext, model: Classifier, rows: np.ndarray) -> Features:
    """Run the base over the manifest rows `rows`, int64 (N,), each rank over its part."""
    plan, ranks, bf16 = context.plan, context.ranks, context.bf16
    if model.keep_shape:  # images of one shape are in one batch
        manifest = context.prepared.manifest.iloc[rows]
        sides = map(sides_on_canvas, manifest["height"], manifest["width"], [plan.input_size] * len(rows))
        rows = rows[np.lexsort(np.array(list(sides)).reshape(-1, 2).T)]
    chunks: list[np.ndarray] = []
    indices: list[np.ndarray] = []
    clock, started = loop.Clock(), time.perf_counter()
    model.eval()
    size = max(plan.batch_size, GPU_BATCH) if ranks.device.type == "cuda" else plan.batch_size
    batches = context.make_loader(replace(plan, rows={"val": rows}, batch_size=size), [("val", 0)]).batches("val", 0)
    pending: list[torch.Tensor] = []
    for image, _ in loop.on_device(with_recorded_rows(batches, indices), ranks.device, clock):
        with loop.autocast(ranks.device, bf16):
            pending.append(model.features(image).float())
        if ranks.device.type == "cpu" or sum(part.nbytes for part in pending) > CHUNK_BYTES:
            chunks.append(torch.cat(pending).cpu().numpy())
            pending = []
        done = min(clock.images * ranks.world_size, len(rows))
        context.report(PhaseProgress("features", done, len(rows), time.perf_counter() - started))
    chunks += [torch.cat(pending).cpu().numpy()] if pending else []
    pairs = [pair for pair in all_gather((indices, chunks)) if pair[0]]
    index, features = (np.concatenate([part for pair in pairs for part in pair[which]]) for which in (0, 1))
    loop.check_row_count("features", len(index), len(rows))
    return Features(index, features)


@contextmanager
def one_thread_for_small(head: nn.Module) -> Iterator[None]:
    """One CPU thread within the block if a step of `head` is too short to share: on a busy machine threads wait for
    each other, 196 to 242 ms a step in place of 0.2 ms (1,024 features, 10 classes, batch 32; load 28 on 2 cores)."""
    threads = torch.get_num_threads()
    if sum(parameter.numel() for parameter in head.parameters()) <= SMALL_HEAD:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def with_recorded_rows(batches: Iterator[Batch], indices: list[np.ndarray]) -> Iterator[Batch]:
    """`batches` unchanged; the manifest rows of each (int64) are appended to `indices` as it passes."""
    for batch in batches:
        indices.append(np.array(batch["index"]))
        yield batch
