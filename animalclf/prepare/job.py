"""`prepare`: the Ray Data job that reads every image once and leaves a prepared set. The driver sees what was measured, never the pixels.

Each task takes a chunk of files, drawn at random so that every shard is a random sample of the set, and writes them as one shard itself. A repeated
task writes the same file again, whole. `dataset.json` comes last: without it nothing here looks finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from animalclf.config import Data
from animalclf.data.prepared_set import INFO, MANIFEST, Prepared, open_prepared
from animalclf.duplicates import find
from animalclf.errors import UserError
from animalclf.prepare import manifest as tables
from animalclf.prepare import output_dir, sources
from animalclf.prepare.split import split
from animalclf.prepare.task import Job, image_of, measure, shard_name
from animalclf.utils import storage
from animalclf.utils.console import console
from animalclf.utils.interrupts import delayed_interrupt
from animalclf.utils.progress import ProgressLine

CHUNK_IMAGES = (32, 2048)
CHUNK_BYTES = 128 * 2**20  # of stored images; a task that writes to a bucket holds about one and a half times as much
CHUNKS_PER_CPU = 4
SECONDS_BETWEEN_LINES = 5.0

Show = Callable[[str, int], None]  # what is being done, and how many images are through


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
    """The prepared set of the images `data` in the folder or prefix `out`: made now, or found there unchanged (then Ray is not started).

    `data`: as for `sources.find`, or what that returned.
    `limit`: use so many images only, in proportion to the classes and at least two of each. `force`: make it anew, whatever set is in `out`.
    `workers`: training workers for which a Ray that is started here has room too.
    Raises UserError for images that cannot be found or used, another set or other files in `out`, and an `out` without space or permission; then,
    and after Ctrl-C, no half of a set is left.
    """
    started = time.monotonic()
    config = replace(config, limit=limit or config.limit)
    out = storage.absolute(out)
    source = data if isinstance(data, sources.Source) else sources.find(data, config)
    if source.whole_folder and f"{out}/".startswith(f"{source.root}/"):
        raise UserError(
            f"{out}: lies within the pictures {source.root}, where it would be taken for pictures itself; choose a folder outside"
        )
    inputs = sources.inputs_hash(source, config)
    existing = None if force else _existing(out, source, config, inputs)
    if existing:
        return existing
    files = _limited(source.files.sort_values("path", ignore_index=True), config)
    output_dir.make_room(out, len(files) * config.stored_size**2 * 3)
    with output_dir.cleared_on_failure(out):
        if progress:
            summary = f"{len(files):,} pictures of {files['label'].nunique()} classes in {source.root} ({source.kind})"
            console.print(
                f"preparing {summary}, stored at {config.stored_size} px in {out}", markup=False, soft_wrap=True
            )
        with ProgressLine(interval=SECONDS_BETWEEN_LINES, enabled=progress) as line:
            manifest, names = _make_shards(files, source, out, config, partial(line.update, total=len(files)), workers)
        storage.write_table(storage.join(out, MANIFEST), manifest)
        info = tables.describe(manifest, source, config, inputs, names, time.monotonic() - started)
        storage.write_json(storage.join(out, INFO), info)
    return open_prepared(out)


def _existing(out: str, source: sources.Source, config: Data, inputs: str) -> Prepared | None:
    """The set in `out`, if there is one. Raises UserError for a set of other inputs, and for a damaged one."""
    names = output_dir.file_names(out)
    if INFO not in names:
        return None
    prepared = open_prepared(out)
    if prepared.info["inputs"] != inputs:
        what = tables.changes(prepared, source, config)
        raise UserError(
            f"{out}: holds a set prepared of other pictures or settings ({what}); choose another folder, or replace it with --force"
        )
    missing = sorted({shard["file"] for shard in prepared.info["shards"]} - set(names))
    if missing:
        raise UserError(f"{out}: the prepared set is damaged, {missing[0]} is missing; make it anew with --force")
    return prepared


def _limited(files: pd.DataFrame, config: Data) -> pd.DataFrame:
    """`config.limit` of the files, in their order: those that come first when every class is dealt out evenly from its first picture to its last."""
    if not 0 < config.limit < len(files):
        return files
    shuffled = files.iloc[np.random.default_rng(config.split_seed).permutation(len(files))]
    rank = shuffled.groupby("label").cumcount()
    turn = ((rank + 0.5) / shuffled.groupby("label")["label"].transform("size")).where(
        rank >= 2, 0
    )  # at least two, so that it can be split
    count = max(config.limit, int((turn == 0).sum()))
    return shuffled.loc[turn.sort_values(kind="stable").index[:count]].sort_index(ignore_index=True)


def _make_shards(
    files: pd.DataFrame, source: sources.Source, out: str, config: Data, show: Show, workers: int
) -> tuple[pd.DataFrame, dict[int, str]]:
    """Read the files and write the shards. Returns the manifest, and the shards' file names by their number there."""
    manifest, signatures = _read(files, source.root, out, config, show, workers)
    tables.check_readable(manifest, config.max_unreadable)
    names = _number_shards(manifest, out)
    output_dir.clear(out, [output_dir.TEMPORARY])  # of tasks that were killed, and done again
    with ThreadPoolExecutor(1) as background:
        synced = background.submit(storage.keep_all, [storage.join(out, name) for name in names.values()])
        show("looking for duplicates", 0)
        examples = tables.add_groups(
            manifest, signatures, lambda share: show("looking for duplicates", max(1, round(share * len(files))))
        )
        manifest["split"] = split(manifest, config)
        if examples:
            show("drawing duplicates", len(files))
            sheet = find.contact_sheet(examples, partial(image_of, source.root, config.max_pixels))
            storage.write_bytes(storage.join(out, output_dir.SHEET), sheet)
        synced.result()
    return manifest, names


def _number_shards(manifest: pd.DataFrame, out: str) -> dict[int, str]:
    """Number the shards that exist from 0 in the manifest; returns number -> file name. Raises UserError where one did not arrive."""
    chunks = np.unique(manifest.loc[manifest["shard"] >= 0, "shard"])
    names = {number: shard_name(chunk) for number, chunk in enumerate(chunks)}
    missing = sorted(set(names.values()) - set(output_dir.file_names(out)))
    if missing:
        raise UserError(
            f"{out}: {missing[0]} was written and is gone; is another `prepare` at work there, or is the folder not shared by all nodes?"
        )
    position = np.searchsorted(chunks, manifest["shard"])
    manifest["shard"] = np.where(manifest["shard"] >= 0, position, -1).astype(np.int32)
    return names


def _read(
    files: pd.DataFrame, root: str, out: str, config: Data, show: Show, workers: int
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """Run the job. Returns the manifest so far (path, label, given split, what was measured) and, with data.near_duplicates, the signatures
    uint8 (rows, K)."""
    from animalclf.cluster import data_context, ensure_ray

    show("starting Ray", 0)
    ensure_ray(workers)
    with delayed_interrupt():
        import ray.data

        data_context()
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    chunks = _chunks(files, config, cpus)
    job = Job(root, out, config.stored_size, config.max_pixels, config.store)
    blocks = ray.data.from_blocks(chunks).map_batches(
        partial(measure, job=job), batch_size=None, batch_format="pandas", num_cpus=1
    )
    measured: list[dict[str, np.ndarray]] = []
    signatures = np.zeros((len(files), find.SIDE**2), np.uint8) if config.near_duplicates else None
    done = 0
    show("reading images", done)
    for block in blocks.iter_batches(batch_size=None, batch_format="numpy"):
        failed = block.pop("failed")[0]
        if failed:
            raise UserError(failed)
        signature = block.pop("signature")
        if signatures is not None:
            signatures[block["index"]] = signature
        measured.append(block)
        done += len(block["index"])
        show("reading images", done)
    columns = {name: np.concatenate([block[name] for block in measured]) for name in measured[0]}
    position = np.argsort(columns.pop("index"))
    if len(position) != len(files):
        raise RuntimeError(
            f"{len(position)} of {len(files)} pictures came back from the tasks: this is a bug, please report it"
        )
    given = files[["path", "label", "split"]].reset_index(drop=True)
    return pd.concat(
        [given, pd.DataFrame({name: column[position] for name, column in columns.items()})], axis=1
    ), signatures


def _chunks(files: pd.DataFrame, config: Data, cpus: int) -> list[pd.DataFrame]:
    """The files in random order, cut into one table a task: index, path, bytes, shard (the task's number)."""
    smallest, largest = CHUNK_IMAGES
    even = -(-len(files) // (CHUNKS_PER_CPU * cpus))
    limit = min(max(smallest, even), largest, max(1, CHUNK_BYTES // (config.stored_size**2 * 3)))
    rounds = -(-len(files) // (cpus * limit))
    size = max(min(smallest, limit), -(-len(files) // (cpus * rounds)))  # the last round of tasks as long as the others
    order = np.random.default_rng(config.split_seed).permutation(len(files))
    path, size_of = files["path"].to_numpy(), files["bytes"].to_numpy()
    return [
        pd.DataFrame({"index": rows, "path": path[rows], "bytes": size_of[rows], "shard": number})
        for number, rows in enumerate(np.split(order, range(size, len(order), size)))
    ]
