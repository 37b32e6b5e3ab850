"""Cached maps of frozen layers (`train.cached_views`): the layers below the trainable ones run once over a few
augmented views of each image, and the epochs train the layers above on their maps.

A file `views-<key>.npy` in this node's cache folder has the maps, as bfloat16: of every image as it is, then of each
view of the training images. Its key is a hash of what they depend on, so that folds, trials and later runs share it.
The views are the augmented images of the first epochs: a training of no more epochs computes what it does without them.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from animalclf.config import Config
from animalclf.data.disk_cache import CACHE_VARIABLE, FREE_BYTES, cache_folder
from animalclf.data.loader import Batch
from animalclf.data.sampler import Phase, SamplingPlan
from animalclf.errors import UserError
from animalclf.models.classifier import Classifier
from animalclf.rows import PhaseProgress
from animalclf.training import loop
from animalclf.training.context import TrainContext
from animalclf.training.feature_cache import base_facts, machine_lock
from animalclf.training.frozen_features import with_recorded_rows
from animalclf.training.train_state import new_model
from animalclf.utils.text import size_text

MAX_FILES = 4  # of a node; the oldest go
BYTES = 2  # of a bfloat16


@dataclass(frozen=True, eq=False)
class Views:
    """Stored maps: bfloat16 as uint16 (M, H, W, C), and where those of a manifest row are, int64, -1 for none."""

    maps: np.ndarray
    plain: np.ndarray
    """(manifest rows,): of the image as it is."""
    augmented: np.ndarray
    """(views, manifest rows)."""


@dataclass(frozen=True, eq=False)
class ViewLoader:
    """Batches whose "image" is the maps of the frozen layers, float32 (N, H, W, C): of another view in each training
    epoch, in other passes of the image as it is."""

    plan: SamplingPlan
    views: Views

    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]:
        """The batches of one pass of the only rank."""
        augmented = self.views.augmented
        position = augmented[epoch % len(augmented)] if phase == "train" else self.views.plain
        for index in self.plan.batch_rows(phase, epoch, 0, 1):
            if len(index):
                maps = self.views.maps[position[index]].astype(np.uint32) << 16
                yield {"image": maps.view(np.float32), "label": self.plan.labels[index], "index": index}


def map_shape(model: Classifier, size: int) -> tuple[int, int, int]:
    """(H, W, C) of the maps of an image of `size` px, on whichever device `model` is, which evaluates from then on."""
    model.eval()
    with torch.no_grad():
        _, height, width, channels = model.lower_maps(torch.zeros(1, size, size, 3, device=model.mean.device)).shape
    return height, width, channels


def stored_bytes(config: Config, shape: tuple[int, int, int], train: int, total: int) -> int:
    """Bytes of the maps of `total` images, of which `train` have augmented views."""
    return BYTES * math.prod(shape) * (total + config.train.cached_views * train)


def check_room(size: int, folder: str | None = None) -> None:
    """Raise UserError if the disk of the cache folder has no room for `size` bytes."""
    folder = os.path.abspath(folder or cache_folder())
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free - FREE_BYTES
    if size > free:
        raise UserError(
            f"train.cached_views: the maps take {size_text(size)}, {folder} has room for "
            f"{size_text(max(free, 0))}; set a smaller train.cached_views, or the environment variable "
            f"{CACHE_VARIABLE} to another folder"
        )


def with_cached_views(context: TrainContext, folder: str | None = None) -> TrainContext:
    """With `train.cached_views` a context whose loaders give the cached maps, which are computed here unless they are
    stored; else `context`. Raises UserError for more than one worker, and if the disk has no room."""
    if not context.config.train.cached_views:
        return context
    if context.ranks.world_size > 1:
        raise UserError("train.cached_views: the maps are on one worker's disk; set --workers 1")
    started = time.perf_counter()
    model = new_model(context.config, len(context.classes), context.ranks)
    context = replace(context, plan=replace(context.plan, augment_on_device=False))
    rows = context.plan.rows
    total, train = np.sort(np.concatenate(list(rows.values()))), np.sort(rows["train"])
    shape = map_shape(model, context.plan.input_size)
    count = len(total) + context.config.train.cached_views * len(train)
    path = os.path.join(folder or cache_folder(), f"views-{_key(context, model, total, train)}.npy")
    plain, augmented = _positions(context, total, train)
    with machine_lock(path):
        maps = _read(path, (count, *shape))
        if maps is None:
            check_room(stored_bytes(context.config, shape, len(train), len(total)), folder)
            _write(path, (count, *shape), context, model, Views(np.empty(0), plain, augmented))
            maps = np.load(path, mmap_mode="r")
    views = Views(maps, plain, augmented)
    trainings = context.config.train.folds + 1 if context.config.train.folds else 1
    return replace(
        context,
        make_loader=lambda plan, passes: ViewLoader(plan, views),
        features_seconds=(time.perf_counter() - started) / trainings,
    )


def _key(context: TrainContext, model: Classifier, total: np.ndarray, train: np.ndarray) -> str:
    config, plan = context.config, context.plan
    facts = base_facts(context.prepared, config, model, model.base[: model.frozen_layers])  # type: ignore[index]
    facts |= {
        "views": config.train.cached_views,
        "augment": asdict(plan.augment),
        "seed": plan.seed,
        "rows": [hashlib.sha256(rows.tobytes()).hexdigest() for rows in (total, train)],
        "precision": ["bf16" if context.bf16 else "fp32", context.ranks.device.type, model.channels_last],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _positions(context: TrainContext, total: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    views, rows = context.config.train.cached_views, len(context.plan.labels)
    plain, augmented = np.full(rows, -1, np.int64), np.full((views, rows), -1, np.int64)
    plain[total] = np.arange(len(total))
    augmented[:, train] = len(total) + np.arange(views * len(train)).reshape(views, len(train))
    return plain, augmented


def _read(path: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """The stored maps; None if there are none, or if the file has been damaged."""
    try:
        maps = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return maps if maps.shape == shape and maps.dtype == np.uint16 else None


@torch.no_grad()
def _write(path: str, shape: tuple[int, ...], context: TrainContext, model: Classifier, places: Views) -> None:
    """Compute the maps of all images and views, and write them into the file."""
    ranks, rows, views = context.ranks, context.plan.rows, len(places.augmented)
    total = np.sort(np.concatenate(list(rows.values())))
    plan = replace(context.plan, rows={"train": rows["train"], "val": total}, balance="none")  # each image once
    passes: list[tuple[Phase, int]] = [("val", 0), *(("train", view) for view in range(views))]
    loader = context.make_loader(plan, passes)
    clock, started, partial = loop.Clock(), time.perf_counter(), f"{path}.{os.getpid()}.tmp"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    maps = np.lib.format.open_memmap(partial, "w+", np.uint16, shape)
    try:
        for phase, epoch in passes:
            position = places.augmented[epoch] if phase == "train" else places.plain
            indices: list[np.ndarray] = []
            batches = with_recorded_rows(loader.batches(phase, epoch), indices)
            for batch, (image, _) in enumerate(loop.on_device(batches, ranks.device, clock)):
                with loop.autocast(ranks.device, context.bf16):
                    values = model.lower_maps(image)
                maps[position[indices[batch]]] = values.bfloat16().view(torch.int16).cpu().numpy().view(np.uint16)
                context.report(PhaseProgress("features", clock.images, shape[0], time.perf_counter() - started))
        maps.flush()
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)
    files = glob.glob(os.path.join(glob.escape(os.path.dirname(path)), "views-*.npy"))
    for old in sorted(files, key=os.path.getmtime)[:-MAX_FILES]:
        os.remove(old)
