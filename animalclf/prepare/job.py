"""`prepare`: the Ray Data job that reads every picture once and leaves a prepared set. The driver sees what was measured, never the pixels.

Each task takes a chunk of files, drawn at random so that every shard is a random sample of the set, and writes them as one shard itself. A repeated
task writes the same file again, whole. `dataset.json` comes last: without it nothing here looks finished.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial

import numpy as np
import pandas as pd

from animalclf.config import Data
from animalclf.data.prepared_set import INFO, MANIFEST, Prepared, open_prepared
from animalclf.duplicates import find
from animalclf.errors import UserError
from animalclf.prepare import manifest as tables
from animalclf.prepare import sources
from animalclf.prepare.manifest import SHEET, summary
from animalclf.prepare.split import split
from animalclf.prepare.task import Job, measure, picture, shard_name
from animalclf.utils import storage
from animalclf.utils.console import console
from animalclf.utils.progress import ProgressLine

__all__ = ["prepare", "summary"]

OURS = (INFO, MANIFEST, SHEET, "shard-*.parquet", "*.tmp")  # in the order of removal: without INFO it is no finished set
CHUNK_PICTURES = (32, 2048)
CHUNK_BYTES = 128 * 2**20  # of stored pictures; a task that writes to a bucket holds about one and a half times as much
CHUNKS_PER_CPU = 4
SECONDS_BETWEEN_LINES = 5.0

Show = Callable[[str, int], None]  # what is being done, and how many images are through


def prepare(
    data: str | sources.Source, out: str, config: Data, *, limit: int = 0, force: bool = False, progress: bool = True, workers: int = 0
) -> Prepared:
    """The prepared set of the pictures `data` in the folder or prefix `out`: made now, or found there unchanged (then Ray is not started).

    `data`: as for `sources.find`, or what that returned.
    `limit`: use so many pictures only, in proportion to the classes and at least two of each. `force`: make it anew, whatever set is in `out`.
    `workers`: training workers for which a Ray that is started here has room too.
    Raises UserError for pictures that cannot be found or used, another set or other files in `out`, and an `out` without space or permission; then,
    and after Ctrl-C, no half of a set is left.
    """
    started = time.monotonic()
    config = replace(config, limit=limit or config.limit)
    out = storage.absolute(out)
    source = data if isinstance(data, sources.Source) else sources.find(data, config)
    if source.whole_folder and f"{out}/".startswith(f"{source.root}/"):
        raise UserError(f"{out}: lies within the pictures {source.root}, where it would be taken for pictures itself; choose a folder outside")
    inputs = sources.inputs_hash(source, config)
    there = _listed(out)
    if INFO in there and not force:
        found = open_prepared(out)
        if found.info["inputs"] != inputs:
            what = tables.changes(found, source, config)
            raise UserError(f"{out}: holds a set prepared of other pictures or settings ({what}); choose another folder, or replace it with --force")
        missing = sorted({shard["file"] for shard in found.info["shards"]} - set(there))
        if missing:
            raise UserError(f"{out}: the prepared set is damaged, {missing[0]} is missing; make it anew with --force")
        return found
    files = _limited(source.files.sort_values("path", ignore_index=True), config)
    _claim(out, len(files) * config.stored_size**2 * 3)
    whole = False
    try:
        if progress:
            found_there = f"{len(files):,} pictures of {files['label'].nunique()} classes in {source.root} ({source.kind})"
            console.print(f"preparing {found_there}, stored at {config.stored_size} px in {out}", markup=False, soft_wrap=True)
        with ProgressLine(interval=SECONDS_BETWEEN_LINES, enabled=progress) as line, ThreadPoolExecutor(1) as background:
            show = partial(line.update, total=len(files))
            manifest, signatures = _read(files, source.root, out, config, show, workers)
            tables.check_readable(manifest, config.max_bad)
            names = _number_shards(manifest, out)
            _clear(out, ["*.tmp"])  # of tasks that were killed, and done again
            kept = background.submit(storage.keep_all, [storage.join(out, name) for name in names.values()])
            show("looking for copies", 0)
            examples = tables.add_groups(manifest, signatures, lambda share: show("looking for copies", max(1, round(share * len(files)))))
            manifest["split"] = split(manifest, config)
            if examples:
                show("drawing copies", len(files))
                storage.write_bytes(storage.join(out, SHEET), find.contact_sheet(examples, partial(picture, source.root, config.max_pixels)))
            kept.result()
        storage.write_table(storage.join(out, MANIFEST), manifest)
        info = tables.describe(manifest, source, config, inputs, names, time.monotonic() - started)
        storage.write_json(storage.join(out, INFO), info)
        whole = True
    finally:
        if not whole:
            _clear(out)
    return open_prepared(out)


def _limited(files: pd.DataFrame, config: Data) -> pd.DataFrame:
    """`config.limit` of the files, in their order: those that come first when every class is dealt out evenly from its first picture to its last."""
    if not 0 < config.limit < len(files):
        return files
    shuffled = files.iloc[np.random.default_rng(config.split_seed).permutation(len(files))]
    rank = shuffled.groupby("label").cumcount()
    turn = ((rank + 0.5) / shuffled.groupby("label")["label"].transform("size")).where(rank >= 2, 0)  # at least two, so that it can be split
    count = max(config.limit, int((turn == 0).sum()))
    return shuffled.loc[turn.sort_values(kind="stable").index[:count]].sort_index(ignore_index=True)


# ------------------------------------------------------------------------------------------------------------------- the folder `out`


def _listed(out: str) -> list[str]:
    fs, path = storage.filesystem(out)
    fs.invalidate_cache()
    try:
        found = storage.explained(out, lambda: fs.ls(path, detail=False))
        return [os.path.basename(name.rstrip("/")) for name in found if name.rstrip("/") != path]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _clear(out: str, patterns: Sequence[str] = OURS) -> None:
    """Remove what `prepare` writes, and nothing else."""
    names = _listed(out)
    for pattern in patterns:
        for name in names:
            if fnmatch(name, pattern):
                storage.remove(storage.join(out, name))


def _claim(out: str, size: int) -> None:
    """Make sure that `out` can take `size` bytes, and remove what an interrupted or replaced preparation left there."""
    foreign = [name for name in _listed(out) if not name.startswith(".") and not any(fnmatch(name, pattern) for pattern in OURS)]
    if foreign:
        raise UserError(f"{out}: holds other files ({', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}); choose an empty or a new folder")
    probe = storage.join(out, "probe.tmp")
    storage.write_bytes(probe, b"")
    storage.remove(probe)
    _clear(out)
    free = size if storage.is_remote(out) else shutil.disk_usage(out).free
    if size > free:
        raise UserError(
            f"{out}: the prepared pictures need {size / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "free space, choose another place, or store them smaller with --set data.stored_size=..."
        )


def _number_shards(manifest: pd.DataFrame, out: str) -> dict[int, str]:
    """Number the shards that exist from 0 in the manifest; returns number -> file name. Raises UserError where one did not arrive."""
    chunks = np.unique(manifest.loc[manifest["shard"] >= 0, "shard"])
    names = {number: shard_name(chunk) for number, chunk in enumerate(chunks)}
    missing = sorted(set(names.values()) - set(_listed(out)))
    if missing:
        raise UserError(f"{out}: {missing[0]} was written and is gone; is another `prepare` at work there, or is the folder not shared by all nodes?")
    place = np.searchsorted(chunks, manifest["shard"])
    manifest["shard"] = np.where(manifest["shard"] >= 0, place, -1).astype(np.int32)
    return names


# ------------------------------------------------------------------------------------------------------------------------ the Ray job


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """For a second or two of imports: Ctrl-C comes at their end. Within one, Python may lose it and go on."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where it is ignored, as in background jobs
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = []
    signal.signal(signal.SIGINT, lambda *_: asked.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if asked:
        raise KeyboardInterrupt


def _read(files: pd.DataFrame, root: str, out: str, config: Data, show: Show, workers: int) -> tuple[pd.DataFrame, np.ndarray | None]:
    """Run the job. Returns the manifest so far (path, label, given split, what was measured) and, where near-copies are looked for, the signatures
    uint8 (rows, K)."""
    from animalclf.cluster import data_context, ensure_ray

    show("starting Ray", 0)
    ensure_ray(workers)
    with _uninterrupted():
        import ray.data

        data_context()
    few, many = CHUNK_PICTURES
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    even = -(-len(files) // (CHUNKS_PER_CPU * cpus))
    most = min(max(few, even), many, max(1, CHUNK_BYTES // (config.stored_size**2 * 3)))
    size = max(min(few, most), -(-len(files) // (cpus * -(-len(files) // (cpus * most)))))  # the last round of tasks as long as the others
    order = np.random.default_rng(config.split_seed).permutation(len(files))
    chunks = [
        pd.DataFrame({"index": rows, "path": files["path"].to_numpy()[rows], "bytes": files["bytes"].to_numpy()[rows], "shard": number})
        for number, rows in enumerate(np.split(order, range(size, len(order), size)))
    ]
    job = Job(root, out, config.stored_size, config.max_pixels, config.store)
    blocks = ray.data.from_blocks(chunks).map_batches(partial(measure, job=job), batch_size=None, batch_format="pandas", num_cpus=1)
    found: list[dict[str, np.ndarray]] = []
    signatures = np.zeros((len(files), find.SIDE**2), np.uint8) if config.near_copies else None
    done = 0
    show("reading pictures", done)
    for block in blocks.iter_batches(batch_size=None, batch_format="numpy"):
        failed = block.pop("failed")[0]
        if failed:
            raise UserError(failed)
        signature = block.pop("signature")
        if signatures is not None:
            signatures[block["index"]] = signature
        found.append(block)
        done += len(block["index"])
        show("reading pictures", done)
    columns = {name: np.concatenate([block[name] for block in found]) for name in found[0]}
    place = np.argsort(columns.pop("index"))
    if len(place) != len(files):
        raise RuntimeError(f"{len(place)} of {len(files)} pictures came back from the tasks: this is a bug, please report it")
    given = files[["path", "label", "split"]].reset_index(drop=True)
    return pd.concat([given, pd.DataFrame({name: column[place] for name, column in columns.items()})], axis=1), signatures
