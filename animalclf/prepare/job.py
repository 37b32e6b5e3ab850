"""`prepare`: a Ray Data job that reads every image once and writes a prepared set.

Each task reads one chunk of files and writes one shard. Chunks are drawn at random, so every shard is a random sample
of the set. A retried task overwrites its shard. Only measurements go to the driver, never pixels. `dataset.json` is
written last: a folder without it is not a prepared set.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from PIL import Image

from animalclf.config import Data
from animalclf.data.prepared_set import INFO, MANIFEST, Prepared, open_prepared
from animalclf.duplicates import find
from animalclf.errors import UserError
from animalclf.prepare import output_dir, sources
from animalclf.prepare.manifest import add_groups, check_readable, describe, differences
from animalclf.prepare.sources.corrections import corrections_text
from animalclf.prepare.split import split
from animalclf.prepare.task import Job, measure, read_files, read_image, shard_name
from animalclf.utils import storage
from animalclf.utils.canvas import STEP
from animalclf.utils.console import show_line
from animalclf.utils.interrupts import delayed_interrupt
from animalclf.utils.progress import ProgressLine
from animalclf.utils.row_file import Rows, zero_rows
from animalclf.utils.stall import told_of_stalls
from animalclf.utils.text import count_text

MIN_CHUNK_IMAGES, MAX_CHUNK_IMAGES = 32, 2048
MAX_CHUNK_BYTES = 128 * 2**20  # of stored images; a task that writes to a bucket holds 1.5 times as much in memory
CHUNKS_PER_CPU = 4
HEADERS, MAX_HEADER_BYTES = 16, 20_000_000  # images whose size is read for the plan line, and the size of their files
ENLARGED, SMALLEST = 3, 96  # suggested stored size: times that of the images, at least; every model takes 96 px
LOG_SECONDS = 5.0  # between two progress lines in a log

Progress = Callable[[str, int], None]  # called with the phase and the number of images done


def prepare(
    data: str | sources.Source,
    out: str,
    config: Data,
    *,
    limit: int = 0,
    force: bool = False,
    progress: bool = True,
    workers: int = 0,
) -> Prepared:
    """Prepare the images `data` in the folder or prefix `out`, or open the set that is already there if nothing changed
    (without Ray).

    `data`: as for `sources.find`, or its result. `limit`: use only this many images, in proportion to the classes and
    at least two of each. `force`: replace any prepared set in `out`. `workers`: training workers for which a Ray that
    is started here has room too. Raises UserError for images that cannot be found or used, for a different set or other
    files in `out`, and for an `out` without space or write permission. After an error or Ctrl-C, `out` holds no part of
    a set, and is removed if it is empty. A process that prepares in `out` is waited for: its set may be the same.
    """
    started = time.monotonic()
    config = replace(config, limit=limit or config.limit)
    out = storage.absolute(out)
    source = data if isinstance(data, sources.Source) else sources.find(data, config)
    if source.whole_folder and f"{out}/".startswith(f"{source.root}/"):
        raise UserError(
            f"{out}: is inside the image folder {source.root}, where its files would be read as images; "
            "choose an output folder outside it"
        )
    inputs = sources.inputs_hash(source, config)
    if existing := None if force else _open_existing(out, source, config, inputs):
        return existing
    output_dir.check_own(out)
    with output_dir.locked(out) as (lock, waited):
        if waited and not force and (existing := _open_existing(out, source, config, inputs)):
            return existing
        output_dir.check_own(out)  # what was waited for may have been another command
        files = sample_files(source.files.sort_values("path", ignore_index=True), config)
        output_dir.reserve(out, len(files) * config.stored_size**2 * 3)
        with output_dir.cleared_on_failure(out, lock):
            if progress:
                show_line(_plan(files, source, out, config) + _enlargement(files, source.root, config))
                for warning in source.warnings:
                    show_line(f"warning: {warning}")
            with ProgressLine(interval=LOG_SECONDS, enabled=progress) as line:

                def progress_locked(phase: str, done: int) -> None:
                    lock.check_held()
                    line.update(phase, done, len(files))

                manifest, names = _build(files, source, out, config, progress_locked, workers)
            lock.check_held()
            storage.write_table(storage.join(out, MANIFEST), manifest)
            info = describe(manifest, source, config, inputs, names, time.monotonic() - started)
            storage.write_json(storage.join(out, INFO), info)
    return open_prepared(out)


def _plan(files: pd.DataFrame, source: sources.Source, out: str, config: Data) -> str:
    """The first line: what is read from where, and what is written where."""
    total = f"{len(files):,} of " if len(files) < len(source.files) else ""
    images = f"{total}{count_text(len(source.files), 'image')} in {count_text(files['label'].nunique(), 'class')}"
    corrected = f"; {corrections_text(source.corrections)}" if source.corrections else ""
    return (
        f"preparing {images} from {source.root} ({source.kind}{corrected}), stored at {config.stored_size} px in {out}"
    )


def _enlargement(files: pd.DataFrame, root: str, config: Data) -> str:
    """A remark for the plan line if the median of a few images is smaller than the stored size, with a better one if
    that is a multiple of the images; their headers are read before any image is stored."""
    small = files[files["bytes"] <= MAX_HEADER_BYTES]
    sample = small.sample(min(HEADERS, len(small)), random_state=config.split_seed)["path"]
    sizes = [size for size in map(_size, read_files(root, sample.to_list())) if size]
    median = sorted(sizes, key=min)[len(sizes) // 2] if sizes else (config.stored_size,) * 2
    if min(median) >= config.stored_size:
        return ""
    remark = f"; most images are smaller and are scaled up (median {median[0]} x {median[1]} px)"
    better = max(SMALLEST, -(-ENLARGED * min(median) // STEP) * STEP)
    if 2 * better**2 > config.stored_size**2:
        return remark
    fraction = (better / config.stored_size) ** 2
    return (
        f"{remark}; --set data.stored_size={better} --set model.input_size={better} needs {fraction:.0%} of the memory"
    )


def _size(content: bytes | str) -> tuple[int, int] | None:
    """Width and height of an image file (its content as from read_files), or None if its header cannot be read;
    `decode` reports why."""
    if isinstance(content, str):
        return None
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.size
    except Exception:  # noqa: BLE001  (Pillow raises any error for damaged files)
        return None


def _open_existing(out: str, source: sources.Source, config: Data, inputs: str) -> Prepared | None:
    """The prepared set in `out`, or None. Raises UserError for a set of different inputs, and for a damaged one."""
    names = output_dir.file_names(out)
    if INFO not in names:
        return None
    prepared = open_prepared(out)
    if prepared.info["inputs"] != inputs:
        raise UserError(
            f"{out}: holds a prepared set of different images or settings ({differences(prepared, source, config)}); "
            "choose another folder, or replace the set with --force"
        )
    missing = sorted({shard["file"] for shard in prepared.info["shards"]} - set(names))
    if missing:
        raise UserError(f"{out}: the prepared set is damaged, {missing[0]} is missing; prepare it again with --force")
    return prepared


def sample_files(files: pd.DataFrame, config: Data) -> pd.DataFrame:
    """`config.limit` of the files, in their order: a random sample in proportion to the classes, with at least two of
    each."""
    if not 0 < config.limit < len(files):
        return files
    shuffled = files.iloc[np.random.default_rng(config.split_seed).permutation(len(files))]
    rank = shuffled.groupby("label").cumcount()
    # The files are taken by ascending quantile within their class. The first two of each class come first: training and
    # validation need one each.
    quantile = (rank + 0.5) / shuffled.groupby("label")["label"].transform("size")
    quantile = quantile.where(rank >= 2, 0)
    count = max(config.limit, int((quantile == 0).sum()))
    return shuffled.loc[quantile.sort_values(kind="stable").index[:count]].sort_index(ignore_index=True)


def _build(
    files: pd.DataFrame, source: sources.Source, out: str, config: Data, progress: Progress, workers: int
) -> tuple[pd.DataFrame, dict[int, str]]:
    """Measure the files, write the shards, group duplicates and split. Returns the manifest, and the file name of each
    shard number in it."""
    with ThreadPoolExecutor(1) as background:
        # The disk writes each shard while the others are read. A task may be repeated, so all are synced at the end.
        early: list[Future[None]] = []

        def written(chunk: int) -> None:
            early.append(background.submit(storage.sync_files, [storage.join(out, shard_name(chunk))]))

        manifest, signatures = measure_all(files, source.root, out, config, progress, workers, written)
        check_readable(manifest, config.max_unreadable)
        names = number_shards(manifest, out)
        output_dir.clear(out, [output_dir.TEMPORARY])  # left by tasks that were killed and retried
        sync = background.submit(storage.sync_files, [storage.join(out, name) for name in names.values()])
        phase = "finding duplicates"
        progress(phase, 0)
        read = partial(read_image, source.root, config.max_pixels)
        pairs = add_groups(
            manifest, signatures, read, lambda fraction: progress(phase, max(1, round(fraction * len(files))))
        )
        manifest["split"] = split(manifest, config)
        if pairs:
            progress("drawing near-duplicates", len(files))
            sheet = find.contact_sheet(pairs, read)
            storage.write_bytes(storage.join(out, output_dir.SHEET), sheet)
        for future in [*early, sync]:
            future.result()
    return manifest, names


def number_shards(manifest: pd.DataFrame, out: str) -> dict[int, str]:
    """Replace the chunk numbers in the manifest's column `shard` by shard numbers from 0 without gaps. Returns the file
    name of each shard number.

    Raises UserError if a shard that a task has written is not in `out`."""
    chunks = np.unique(manifest.loc[manifest["shard"] >= 0, "shard"])
    names = {number: shard_name(chunk) for number, chunk in enumerate(chunks)}
    missing = sorted(set(names.values()) - set(output_dir.file_names(out)))
    if missing:
        raise UserError(
            f"{out}: {missing[0]} was written but is missing; "
            "check that no other `prepare` writes to this folder and that all nodes share it"
        )
    number = np.searchsorted(chunks, manifest["shard"])
    manifest["shard"] = np.where(manifest["shard"] >= 0, number, -1).astype(np.int32)
    return names


def measure_all(
    files: pd.DataFrame,
    root: str,
    out: str,
    config: Data,
    progress: Progress = lambda phase, done: None,
    workers: int = 0,
    written: Callable[[int], None] = lambda chunk: None,
) -> tuple[pd.DataFrame, Rows | None]:
    """Run the tasks. Returns the manifest without groups (path, label, given split, measurements) and, with
    data.near_duplicates, the signatures uint8 (rows, 1600). `written` is called with the number of each shard that is
    in `out`."""
    from animalclf.cluster import configure_ray_data, ensure_ray
    from animalclf.cluster_size import free_cpus_text
    from animalclf.raycompat.errors import named_worker_errors

    progress("starting Ray", 0)
    ensure_ray(workers)
    with delayed_interrupt():
        import ray.data

        configure_ray_data()
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    job = Job(root, out, config.stored_size, config.max_pixels, config.store, config.resize)
    blocks = ray.data.from_blocks(_chunks(files, config, cpus)).map_batches(
        partial(measure, job=job), batch_size=None, batch_format="pandas", num_cpus=1
    )
    measurements: list[dict[str, np.ndarray]] = []
    signatures = zero_rows(len(files), find.SIDE**2) if config.near_duplicates else None
    done = 0
    progress("reading images", done)
    remedy = "free memory, and run the same command again"
    with named_worker_errors(remedy), told_of_stalls(free_cpus_text) as progressed:
        for block in blocks.iter_batches(batch_size=None, batch_format="numpy"):
            error = block.pop("error")[0]
            if error:
                raise UserError(error)
            signature = block.pop("signature")
            if signatures is not None:
                signatures[block["index"]] = signature
            measurements.append(block)
            if (chunk := int(block["shard"].max())) >= 0:
                written(chunk)
            done += len(block["index"])
            progressed()
            progress("reading images", done)
    columns = {name: np.concatenate([block[name] for block in measurements]) for name in measurements[0]}
    order = np.argsort(columns.pop("index"))
    if len(order) != len(files):
        raise RuntimeError(f"the tasks returned {len(order)} of {len(files)} images: this is a bug, please report it")
    given_columns = files[["path", "label", "split"]].reset_index(drop=True)
    measured_columns = pd.DataFrame({name: column[order] for name, column in columns.items()})
    return pd.concat([given_columns, measured_columns], axis=1), signatures


def _chunks(files: pd.DataFrame, config: Data, cpus: int) -> list[pd.DataFrame]:
    """The files in random order, as one table for each task: index, path, bytes, shard (the chunk's number)."""
    even = -(-len(files) // (CHUNKS_PER_CPU * cpus))
    limit = min(max(MIN_CHUNK_IMAGES, even), MAX_CHUNK_IMAGES, max(1, MAX_CHUNK_BYTES // (config.stored_size**2 * 3)))
    rounds = -(-len(files) // (cpus * limit))
    size = max(min(MIN_CHUNK_IMAGES, limit), -(-len(files) // (cpus * rounds)))  # all rounds of tasks take equally long
    order = np.random.default_rng(config.split_seed).permutation(len(files))
    paths, sizes = files["path"].to_numpy(), files["bytes"].to_numpy()
    return [
        pd.DataFrame({"index": rows, "path": paths[rows], "bytes": sizes[rows], "shard": number})
        for number, rows in enumerate(np.split(order, range(size, len(order), size)))
    ]
