"""The timed steps' task and answer; and their sample: a small prepared set of some of the images, which times
`prepare` too."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from animalclf import config as configuration
from animalclf.config import Config, Data
from animalclf.data.prepared_set import FORMAT, INFO, MANIFEST, Prepared, open_prepared
from animalclf.data.shards import read_shard, write_shard
from animalclf.errors import UserError
from animalclf.planning.images import Images
from animalclf.prepare.manifest import add_groups
from animalclf.prepare.task import Job, measure, read_image, shard_name
from animalclf.rows import Measured
from animalclf.utils import storage

WARM_UP = 4  # images before the timed ones
VAL_EVERY = 4  # every fourth image of a sample validates


@dataclass(frozen=True, eq=False)
class SampleFiles:
    """The images of a sample: `rows` of a manifest of a prepared set at `root`, or of a listing of files there."""

    root: str
    config: Data
    classes: list[str]
    rows: pd.DataFrame
    is_prepared: bool


@dataclass(frozen=True)
class PrepareSeconds:
    """Of one image: to read, decode, resize and store it in one task, and to find its duplicates on all CPUs of a
    node. 0 of images that are prepared."""

    image: float = 0.0
    duplicates: float = 0.0


@dataclass(frozen=True, eq=False)
class SampleTask:
    """What to measure."""

    config: Config
    sample: SampleFiles
    train_counts: list[int]
    """Training images of each class, for the size of fitted heads."""
    batch_size: int
    """Of one worker."""
    workers_per_node: int
    cpu: bool


@dataclass(frozen=True)
class SampleAnswer:
    """What was measured; `error` is the text of a UserError in place of it."""

    measured: Measured | None
    prepare: PrepareSeconds
    features_are_cached: bool = False
    error: str = ""


def choose(images: Images, size: int) -> SampleFiles:
    """About `size` of the images at random, spread over the classes: of a prepared set those in its first shards, each
    of which is a random part of the set."""
    rows = images.files
    if images.prepared:
        manifest = images.prepared.manifest
        rows = manifest[(manifest["status"] == "ok") & (manifest["label"] != "")]
        enough = rows["shard"].value_counts().sort_index().cumsum()
        shards = enough.index[: int((enough < size).sum()) + 1]
        rows = rows[rows["shard"].isin(shards)]
    shuffled = rows.sample(frac=1, random_state=images.config.data.split_seed)
    rank = shuffled.groupby("label").cumcount()
    chosen = shuffled.loc[rank.sort_values(kind="stable").index[:size]].reset_index(drop=True)
    root = images.prepared.root if images.prepared else images.root
    return SampleFiles(root, images.config.data, sorted(images.class_counts), chosen, images.prepared is not None)


def write_sample(sample: SampleFiles, folder: str) -> tuple[Prepared, PrepareSeconds]:
    """Write the sample into `folder` as a prepared set. Unprepared images are prepared, and timed. Raises UserError if
    none of them is readable."""
    os.makedirs(folder)
    manifest, seconds = _copy(sample, folder) if sample.is_prepared else _prepare(sample, folder)
    ok = np.flatnonzero(manifest["status"] == "ok")
    if len(ok) < 2:
        raise UserError(f"{sample.root}: of {len(manifest)} sampled images {len(ok)} are readable; check the files")
    manifest["split"] = "train"
    manifest.loc[ok[VAL_EVERY - 1 :: VAL_EVERY], "split"] = "val"
    storage.write_table(storage.join(folder, MANIFEST), manifest)
    info = {
        "format": FORMAT,
        "classes": sample.classes,
        "stored_size": sample.config.stored_size,
        "fingerprint": "sample",
        "config": configuration.to_dict(sample.config),
        "source": sample.root,
        "shards": [{"file": shard_name(0), "rows": len(ok)}],
    }
    storage.write_json(storage.join(folder, INFO), info)
    return open_prepared(folder), seconds


def _copy(sample: SampleFiles, folder: str) -> tuple[pd.DataFrame, PrepareSeconds]:
    """Write stored images of a prepared set as one shard."""
    prepared, manifest = open_prepared(sample.root), sample.rows
    images: dict[int, np.ndarray] = {}
    shards, row = manifest["shard"].to_numpy(), manifest["row"].to_numpy()
    for number in np.unique(shards):
        shard = read_shard(prepared.shard_paths()[number], prepared.stored_size)[0]
        images |= {int(index): shard[row[index]] for index in np.flatnonzero(shards == number)}
    pairs = ((index, images[index]) for index in range(len(manifest)))
    write_shard(storage.join(folder, shard_name(0)), pairs, sample.config.store, sync=False)
    return manifest.assign(shard=0, row=np.arange(len(manifest), dtype=np.int32)), PrepareSeconds()


def _prepare(sample: SampleFiles, folder: str) -> tuple[pd.DataFrame, PrepareSeconds]:
    """Run the task of `prepare` on the files, in this process, and look for duplicates among them."""
    config = sample.config
    job = Job(sample.root, folder, config.stored_size, config.max_pixels, config.store, config.resize)
    chunk = sample.rows[["path", "bytes"]].assign(index=np.arange(len(sample.rows)), shard=0)
    measure(chunk[:WARM_UP], job)
    started = time.perf_counter()
    columns = measure(chunk, job)
    seconds = time.perf_counter() - started
    if columns["error"][0]:
        raise UserError(columns["error"][0])
    signatures = columns.pop("signature")
    manifest = pd.concat([sample.rows[["path", "label"]], pd.DataFrame(columns)], axis=1)
    started = time.perf_counter()
    add_groups(
        manifest, signatures if config.near_duplicates else None, partial(read_image, sample.root, config.max_pixels)
    )
    count = len(manifest)
    return manifest, PrepareSeconds(seconds / count, (time.perf_counter() - started) / count)
