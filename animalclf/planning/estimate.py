"""Seconds, bytes and memory of a training, from its images and its rehearsal. Plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from animalclf.config import Config
from animalclf.data.sampler import steps_of
from animalclf.planning.images import Images
from animalclf.planning.machine import Machine
from animalclf.planning.sample import PrepareSeconds
from animalclf.planning.timeline import scored_images
from animalclf.rows import Measured

SHARD_BYTES, GROUP_BYTES, IMAGE_ROW_BYTES = 600, 60, 8  # of a shard's file beside its pixels: each, a row group, a row
MANIFEST_BYTES = 130  # of a row of the manifest
JPEG_FRACTION = 0.2  # of the decoded bytes
PREDICTION_BYTES = 60  # of a row of the predictions, beside 4 for each class
EPOCH_BYTES = 1500  # of metrics and events of an epoch
RUN_BYTES = 12_000  # of configuration, environment and result
# Memory of processes beside the workers, in bytes: the command, an input task, and Ray's services on each node.
COMMAND_BYTES, INPUT_BYTES, SERVICES_BYTES = 650 * 10**6, 350 * 10**6, 450 * 10**6
WORKER_BYTES = 250 * 10**6  # of Ray in a worker, which a rehearsal in its own process does without
DEVICE_FRACTION = 0.5  # of a GPU's free memory that the images may take (data.device_loader.fits)


@dataclass(frozen=True, eq=False)
class Setting:
    """What an estimate is made of."""

    config: Config
    images: Images
    machine: Machine
    workers: int
    local: bool
    measured: Measured
    prepare: PrepareSeconds
    features_are_cached: bool
    done_epochs: int = 0
    """Of a run that is continued."""

    @property
    def rehearsed_on_ray(self) -> bool:
        """Whether the rehearsal had the workers of the training; else it ran in its own process."""
        return not (self.local or self.use_gpu or self.machine.is_cluster)

    @property
    def use_gpu(self) -> bool:
        return self.measured.device == "cuda"

    @property
    def nodes(self) -> int:
        """That the workers use: GPU workers are packed, CPU workers spread."""
        if self.local:
            return 1
        if not self.use_gpu:
            return min(self.workers, len(self.machine.nodes))
        gpus = np.cumsum(sorted((node.gpus for node in self.machine.nodes), reverse=True))
        return min(int(np.searchsorted(gpus, self.workers)) + 1, len(self.machine.nodes))

    @property
    def devices(self) -> int:
        """GPUs, or nodes without them."""
        return self.workers if self.use_gpu else self.nodes

    @property
    def input_cpus(self) -> int:
        """CPUs that read and augment the images."""
        per_node = self.machine.cpus / len(self.machine.nodes)
        return 1 if self.local else max(1, int(per_node * self.nodes))

    @property
    def passes(self) -> list[tuple[int, int, int]]:
        """(training images, images validated in each epoch, images scored at the end) of each training."""
        rows, folds = self.images.rows, self.config.train.folds
        train, val = rows["train"], rows["val"]
        if folds:
            return [(train - train // folds, 0, train // folds)] * folds + [(train, 0, rows["test"])]
        if fraction := self.config.train.select_fraction:
            held_out = round(train * fraction)
            return [(train - held_out, held_out, val + rows["test"])]
        return [(train, val, val + rows["test"])]


def phase_seconds(setting: Setting) -> dict[str, float]:
    """Seconds of the phases of the command, in their order; those that it does not have are left out."""
    images, measured, config = setting.images, setting.measured, setting.config
    fixed, prepare, workers = measured.fixed, setting.prepare, setting.workers
    seconds = {"start": fixed["start"] + images.seconds}
    if "Ray" in fixed:
        seconds["Ray"] = fixed["Ray"]
    if images.prepared is None:
        tasks = images.total * prepare.image / setting.machine.cpus
        seconds["prepare"] = prepare.fixed + tasks + images.total * prepare.duplicates
    # Without Ray in the rehearsal, the start of its own process stands for that of a worker's.
    seconds["workers"] = fixed["workers"] + (0.0 if setting.local or setting.rehearsed_on_ray else fixed["start"])
    passes = setting.passes
    if measured.feature_seconds and not setting.features_are_cached:
        seconds["features"] = fixed["features"] + _base_images(setting) * measured.feature_seconds / workers
    epochs = max(0, config.train.epochs - setting.done_epochs)
    if config.train.heads:
        seconds["heads"] = fixed["heads"] + len(passes) * measured.fit_seconds
    elif epochs:
        seconds["epochs"] = fixed["epochs"] + epochs * sum(
            epoch_seconds(setting, train, val) for train, val, _ in passes
        )
    score = sum(scored_images(train, scored, scored) for train, _, scored in passes) * measured.validate_seconds
    score += 0 if config.train.cached_views else images.rows["test"] * measured.feature_seconds
    seconds["evaluation"] = fixed["evaluation"] * len(passes) + score / workers
    seconds["end"] = fixed["end"]
    return seconds


def epoch_seconds(setting: Setting, train: int, val: int) -> float:
    """One epoch of `train` images, validated on `val`. Input tasks work while the workers compute: on a GPU beside
    them, on CPUs on the same cores."""
    measured, workers = setting.measured, setting.workers
    steps = steps_of(train, setting.config.train.batch_size)
    work = measured.step_seconds * (train / max(steps, 1) / workers / measured.step_images)
    read = train * measured.input_seconds / setting.input_cpus
    seconds = max(steps * work, read) if setting.use_gpu else steps * work + read
    return seconds + val * measured.validate_seconds / workers + measured.epoch_seconds


def memory_bytes(setting: Setting, in_store: bool) -> dict[str, int]:
    """Bytes: `worker` (each), `total` (of all processes on all nodes), `object_store` (of a node, for the images), and
    `gpu` (each)."""
    measured, images = setting.measured, setting.images
    rows = images.rows["train"] + images.rows["val"]
    worker = measured.worker_bytes + rows * measured.features * 4
    if setting.local:
        worker += images.pixel_bytes
        memory = {"worker": worker, "total": worker}
    else:
        worker += 0 if setting.rehearsed_on_ray else WORKER_BYTES
        store = images.pixel_bytes if in_store else 0
        inputs = min(setting.machine.cpus, 2 * setting.nodes) * INPUT_BYTES
        beside = COMMAND_BYTES + inputs + SERVICES_BYTES * len(setting.machine.nodes)
        memory = {"worker": worker, "total": setting.workers * worker + beside + store, "object_store": store}
    if measured.gpu_bytes is not None and measured.gpu_total:
        free = measured.gpu_total - measured.gpu_bytes
        on_device = images.pixel_bytes if images.pixel_bytes < free * DEVICE_FRACTION else 0
        memory["gpu"] = measured.gpu_bytes + on_device
    return memory


def prepared_bytes(images: Images) -> int:
    """Bytes of the shards and the manifest of a set that is still to be prepared."""
    pixels = images.pixel_bytes * (JPEG_FRACTION if images.config.data.store == "jpeg" else 1)
    return round(pixels + images.total * (IMAGE_ROW_BYTES + MANIFEST_BYTES))


def read_bytes(setting: Setting, weights: int) -> dict[str, int]:
    """Bytes that the command reads from files, by what is read. `weights`: of the file of pretrained weights."""
    images = setting.images
    stored = images.stored_bytes
    parts = {
        "images": images.source_bytes,
        "prepared set": prepared_bytes(images) if stored is None else stored,
        "weights": weights,
    }
    return {name: size for name, size in parts.items() if size}


def written_bytes(setting: Setting) -> dict[str, int]:
    """Bytes of the files that stay, by what is written."""
    images, measured, config = setting.images, setting.measured, setting.config
    rows = images.rows["train"] + images.rows["val"]
    scored = images.rows["test"] + (rows if config.train.folds else images.rows["val"])
    stores_features = measured.features and config.train.cache_features and not setting.features_are_cached
    parts = {
        "prepared set": 0 if images.prepared else prepared_bytes(images),
        "features": rows * (4 * measured.features + 8) if stores_features else 0,
        "cached views": _base_images(setting) * measured.map_bytes,
        "checkpoints": measured.best_bytes + measured.last_bytes,
        "other files of the run": RUN_BYTES
        + config.train.epochs * EPOCH_BYTES
        + scored * (4 * len(images.class_counts) + PREDICTION_BYTES),
    }
    return {name: size for name, size in parts.items() if size}


def _base_images(setting: Setting) -> int:
    """Images that a frozen base computes features of; with `train.cached_views` the maps that are stored: of all
    images, and of the views of the training images."""
    rows, views = setting.images.rows, setting.config.train.cached_views
    return sum(rows.values()) + views * rows["train"] if views else rows["train"] + rows["val"]


def rewritten_bytes(setting: Setting) -> int:
    """Bytes of the checkpoints of all epochs, if every epoch is better than the ones before."""
    epochs = max(0, setting.config.train.epochs - setting.done_epochs) * len(setting.passes)
    return epochs * (setting.measured.best_bytes + setting.measured.last_bytes)
