"""The images of a training before it starts: exact from a prepared set, from the listing if there is none yet."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from animalclf.config import Config
from animalclf.data.prepared_set import Prepared, is_prepared, open_prepared
from animalclf.data.sampler import sampling_plan
from animalclf.training import checks
from animalclf.utils import storage


@dataclass(frozen=True, eq=False)
class Images:
    """What is known of the images."""

    config: Config
    """With the data settings of the prepared set."""
    folder: str
    """Of the prepared set, existing or to be written."""
    prepared: Prepared | None
    rows: dict[str, int]
    """Images of each split; an estimate of unprepared images, whose duplicates stay together and some of which may be
    unreadable."""
    class_counts: dict[str, int]
    """Images of each class, in all splits, by name."""
    root: str = ""
    """Of the files to prepare."""
    files: pd.DataFrame = field(default_factory=pd.DataFrame)
    """To prepare: path, label, split, bytes."""
    seconds: float = 0.0
    """The search took."""

    @property
    def total(self) -> int:
        return sum(self.class_counts.values())

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all stored images, decoded."""
        if self.prepared:
            return self.prepared.pixel_bytes
        return len(self.files) * self.config.data.stored_size**2 * 3

    @property
    def source_bytes(self) -> int:
        """Bytes of the files to prepare."""
        return int(self.files["bytes"].sum()) if len(self.files) else 0

    @property
    def stored_bytes(self) -> int | None:
        """Bytes of the shards of an existing set; None of one to be prepared."""
        return sum(map(storage.size, self.prepared.shard_paths())) if self.prepared else None


def find_images(data: str, config: Config, prepared_dir: str, explicit_keys: Collection[str] = ()) -> Images:
    """The images `data`, as `checks.open_or_prepare` would open or prepare them. Raises UserError as it does for what
    shows without reading images."""
    started = time.perf_counter()
    planned = checks.set_to_prepare(data, config, prepared_dir)
    if planned and not is_prepared(planned[1]):
        source, folder = planned
        images = _unprepared(source.files, config)
        return replace(images, folder=folder, root=source.root, seconds=time.perf_counter() - started)
    if planned:
        prepared = open_prepared(planned[1])
    else:
        prepared, config = checks.open_existing(data, config, prepared_dir, explicit_keys)
    rows = sampling_plan(prepared, config).rows
    labels = prepared.labels[np.concatenate(list(rows.values()))]
    counts = np.bincount(labels, minlength=len(prepared.classes))
    return Images(
        config,
        prepared.root,
        prepared,
        {split: len(index) for split, index in rows.items()},
        dict(zip(prepared.classes, counts.tolist(), strict=True)),
        seconds=time.perf_counter() - started,
    )


def _unprepared(files: pd.DataFrame, config: Config) -> Images:
    """Images as `prepare` would split them if all are readable and no two are duplicates. Raises UserError as `split`
    does."""
    from animalclf.prepare.job import sample_files
    from animalclf.prepare.split import SPLITS, split

    files = sample_files(files.sort_values("path", ignore_index=True), config.data)
    manifest = files.assign(status="ok", group=np.arange(len(files)), sha256=files["path"])
    counts = pd.Series(split(manifest, config.data)).value_counts()
    rows = {name: int(counts.get(name, 0)) for name in SPLITS}
    if config.train.folds:
        rows |= {"train": rows["train"] + rows["val"], "val": 0}
    classes = files["label"].value_counts().sort_index()
    return Images(config, "", None, rows, {str(name): int(count) for name, count in classes.items()}, files=files)
