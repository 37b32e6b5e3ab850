"""A sample of the images as a small prepared set, whose preparation is timed as that of all of them will run; and the
task and the answer of a rehearsal on it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from animalclf import config as configuration
from animalclf.config import Config, Data
from animalclf.data.prepared_set import FORMAT, INFO, MANIFEST, Prepared, open_prepared
from animalclf.data.shards import read_shard, write_shard
from animalclf.errors import UserError
from animalclf.planning.images import Images
from animalclf.planning.machine import on_all_cpus
from animalclf.prepare.manifest import add_groups
from animalclf.prepare.task import Job, measure, read_image, shard_name
from animalclf.rows import Measured
from animalclf.utils import storage
from animalclf.utils.row_file import Rows

VAL_EVERY = 4  # every fourth image of a sample validates
PREPARE_IMAGES, PREPARE_BYTES = 256, 64 * 2**20  # files that are prepared: at most, unless the training needs more


@dataclass(frozen=True, eq=False)
class SampleFiles:
    """The images of a sample: `rows` of a manifest of a prepared set at `root`, or of a listing of files there."""

    root: str
    config: Data
    classes: list[str]
    rows: pd.DataFrame
    is_prepared: bool
    training_images: int
    """The first of `rows`; the others only time `prepare`."""


@dataclass(frozen=True)
class PrepareSeconds:
    """Of one image: to read, decode, resize and store it in a task while all CPUs run such tasks, and to find its
    duplicates on all CPUs of a node; `fixed`: of any number of images. 0 of images that are prepared."""

    image: float = 0.0
    duplicates: float = 0.0
    fixed: float = 0.0


@dataclass(frozen=True, eq=False)
class SampleTask:
    """What to rehearse."""

    config: Config
    sample: SampleFiles
    train_counts: list[int]
    """Training images of each class, for the size of fitted heads."""
    batch_size: int
    """Of the rehearsal."""
    workers: int = 1
    """Of the rehearsal: 1 in its own process."""
    workers_per_node: int = 1
    cpu: bool = False
    starts_ray: bool = False
    trains_on_ray: bool = False
    on_features: bool = False
    """Of a frozen base."""


@dataclass(frozen=True)
class SampleAnswer:
    """What was measured; `error` is the text of a UserError in place of it. `ended`: the moment when nothing but the
    end of the process was left, in seconds since 1970."""

    measured: Measured | None
    prepare: PrepareSeconds
    features_are_cached: bool = False
    error: str = ""
    ended: float = 0.0


def choose(images: Images, size: int) -> SampleFiles:
    """About `size` of the images at random, spread over the classes: of a prepared set those in its first shards, each
    of which is a random part of the set; of files more, which are prepared only."""
    rows, count = images.files, size
    if images.prepared:
        manifest = images.prepared.manifest
        rows = manifest[(manifest["status"] == "ok") & (manifest["label"] != "")]
        enough = rows["shard"].value_counts().sort_index().cumsum()
        shards = enough.index[: int((enough < size).sum()) + 1]
        rows = rows[rows["shard"].isin(shards)]
    shuffled = rows.sample(frac=1, random_state=images.config.data.split_seed)
    rank = shuffled.groupby("label").cumcount()
    ordered = shuffled.loc[rank.sort_values(kind="stable").index]
    if not images.prepared:
        small = int((ordered["bytes"].cumsum() <= PREPARE_BYTES).sum())
        count = max(size, min(small, PREPARE_IMAGES))
    root = images.prepared.root if images.prepared else images.root
    chosen = ordered.iloc[:count].reset_index(drop=True)
    return SampleFiles(root, images.config.data, sorted(images.class_counts), chosen, images.prepared is not None, size)


def write_sample(sample: SampleFiles, folder: str, cpus: int = 0) -> tuple[Prepared, PrepareSeconds]:
    """Write the sample into `folder` as a prepared set. Unprepared images are prepared, and timed: in Ray tasks on
    `cpus` CPUs, or (0) in this process. Raises UserError if none of them is readable."""
    os.makedirs(folder)
    manifest, names, seconds = _copy(sample, folder) if sample.is_prepared else _prepare(sample, folder, cpus)
    ok = np.flatnonzero(manifest["status"] == "ok")
    if len(ok) < 2:
        raise UserError(f"{sample.root}: of {len(manifest)} sampled images {len(ok)} are readable; check the files")
    trained = ok[: sample.training_images]
    manifest["split"] = ""
    manifest.loc[trained, "split"] = "train"
    manifest.loc[trained[VAL_EVERY - 1 :: VAL_EVERY], "split"] = "val"
    storage.write_table(storage.join(folder, MANIFEST), manifest)
    rows = manifest["shard"].value_counts()
    info = {
        "format": FORMAT,
        "classes": sample.classes,
        "stored_size": sample.config.stored_size,
        "fingerprint": "sample",
        "config": configuration.to_dict(sample.config),
        "source": sample.root,
        "shards": [{"file": name, "rows": int(rows[number])} for number, name in sorted(names.items())],
    }
    storage.write_json(storage.join(folder, INFO), info)
    return open_prepared(folder), seconds


def _copy(sample: SampleFiles, folder: str) -> tuple[pd.DataFrame, dict[int, str], PrepareSeconds]:
    """Write stored images of a prepared set as one shard."""
    prepared, manifest = open_prepared(sample.root), sample.rows
    images: dict[int, np.ndarray] = {}
    shards, row = manifest["shard"].to_numpy(), manifest["row"].to_numpy()
    for number in np.unique(shards):
        shard = read_shard(prepared.shard_paths()[number], prepared.stored_size)[0]
        images |= {int(index): shard[row[index]] for index in np.flatnonzero(shards == number)}
    pairs = ((index, images[index]) for index in range(len(manifest)))
    write_shard(storage.join(folder, shard_name(0)), pairs, sample.config.store, sync=False)
    manifest = manifest.assign(shard=0, row=np.arange(len(manifest), dtype=np.int32))
    return manifest, {0: shard_name(0)}, PrepareSeconds()


def _prepare(sample: SampleFiles, folder: str, cpus: int) -> tuple[pd.DataFrame, dict[int, str], PrepareSeconds]:
    """Prepare the files as `prepare` does, then time its tasks and the search for duplicates again without their
    start."""
    config, files = sample.config, sample.rows
    job = Job(sample.root, folder, config.stored_size, config.max_pixels, config.store, config.resize)
    started = time.perf_counter()
    manifest, signatures, names = _measure(sample, job, cpus)
    read = partial(read_image, sample.root, config.max_pixels)
    usable = signatures if config.near_duplicates else None
    add_groups(manifest, usable, read)
    total, count = time.perf_counter() - started, len(files)
    again = replace(job, out=storage.join(folder, "again"))
    os.makedirs(again.out)
    chunk = _chunk(files)
    parts = [(again, chunk.iloc[number::cpus].assign(shard=number)) for number in range(min(cpus, count))]
    image = float(np.mean(on_all_cpus(_image_seconds, parts))) if parts else _image_seconds(again, chunk)
    started = time.perf_counter()
    add_groups(manifest.copy(), usable, read)
    duplicates = (time.perf_counter() - started) / count
    fixed = max(0.0, total - count * (image / max(1, cpus) + duplicates))
    return manifest, names, PrepareSeconds(image, duplicates, fixed)


def _measure(sample: SampleFiles, job: Job, cpus: int) -> tuple[pd.DataFrame, Rows | None, dict[int, str]]:
    """Manifest, signatures, and the file name of each shard number. Raises UserError as the tasks do."""
    if cpus:
        from animalclf.prepare.job import measure_all, number_shards

        manifest, signatures = measure_all(sample.rows, sample.root, job.out, sample.config)
        return manifest, signatures, number_shards(manifest, job.out)
    columns = measure(_chunk(sample.rows), job)
    if columns["error"][0]:
        raise UserError(columns["error"][0])
    signatures = columns.pop("signature")
    manifest = pd.concat([sample.rows[["path", "label"]], pd.DataFrame(columns)], axis=1)
    return manifest, signatures, {0: shard_name(0)}


def _chunk(files: pd.DataFrame) -> pd.DataFrame:
    return files[["path", "bytes"]].assign(index=np.arange(len(files)), shard=0)


def _image_seconds(job: Job, chunk: pd.DataFrame) -> float:
    """Of one of the images in `chunk`, in a task of `prepare`."""
    started = time.perf_counter()
    measure(chunk, job)
    return (time.perf_counter() - started) / len(chunk)
