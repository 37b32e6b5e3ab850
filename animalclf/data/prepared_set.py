"""The prepared set: a folder or bucket prefix with the manifest, `dataset.json` and a few large Parquet shards of decoded uint8 pictures."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from animalclf.errors import UserError
from animalclf.rows import html_table
from animalclf.utils import storage

FORMAT = 2
MANIFEST = "manifest.parquet"
INFO = "dataset.json"  # written last: its presence says that the set is whole
ROWS_PER_GROUP = 256
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Prepared:
    """An opened prepared set. `manifest` has one row a picture, in the order of its index; `info` is the content of dataset.json."""

    root: str
    info: dict[str, Any]
    manifest: pd.DataFrame

    @property
    def classes(self) -> list[str]:
        """Class names, sorted; a label is a position in this list."""
        return list(self.info["classes"])

    @property
    def stored_size(self) -> int:
        return int(self.info["stored_size"])

    @property
    def fingerprint(self) -> str:
        return str(self.info["fingerprint"])

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all stored pictures together."""
        return sum(shard["rows"] for shard in self.info["shards"]) * self.stored_size**2 * 3

    def _repr_html_(self) -> str:
        """For notebooks: where the set is, and the images of each class in each split."""
        splits = ("train", "val", "test")
        counts = [np.bincount(self.labels[self.rows(split)], minlength=len(self.classes)) for split in splits]
        lines = [(name, *(int(count[number]) for count in counts)) for number, name in enumerate(self.classes)]
        return html_table(("", self.root), (("stored at", f"{self.stored_size} px"),)) + html_table(
            ("class", *splits), lines
        )

    def shard_paths(self) -> list[str]:
        return [storage.join(self.root, shard["file"]) for shard in self.info["shards"]]

    def rows(self, split: str) -> np.ndarray:
        """Manifest rows (int64, ascending) of the readable pictures of `split` (train, val or test)."""
        manifest = self.manifest
        return np.flatnonzero((manifest["split"] == split) & (manifest["status"] == "ok")).astype(np.int64)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Class number of every manifest row, int64 (rows,); -1 where the row has no label."""
        positions = {name: number for number, name in enumerate(self.classes)}
        return self.manifest["label"].map(positions).fillna(-1).to_numpy(np.int64)


def open_prepared(root: str) -> Prepared:
    """Open a prepared set. Raises UserError where there is none, or where it was written by another format."""
    root = storage.absolute(root)
    try:
        info = storage.read_json(storage.join(root, INFO))
    except FileNotFoundError as error:
        raise UserError(
            f"{root}: no prepared set here ({INFO} is missing); make one with: animalclf prepare --data PICTURES --out {root}"
        ) from error
    if info.get("format") != FORMAT:
        raise UserError(
            f"{root}: prepared set of format {info.get('format')}, this version reads {FORMAT}; make it anew: animalclf prepare --force"
        )
    if "pictures" in info:  # the key of older versions
        info["images"] = info.pop("pictures")
    manifest = storage.as_table(storage.read_bytes(storage.join(root, MANIFEST)))
    return Prepared(root, info, manifest)


def is_prepared(root: str) -> bool:
    return storage.exists(storage.join(root, INFO))


def write_shard(
    url: str, pictures: Iterable[tuple[int, np.ndarray]], store: str = "pixels", *, keep: bool = True
) -> None:
    """Write manifest rows and their pictures uint8 (S, S, 3) as one Parquet file, whole or not at all: decoded, or (`store` "jpeg") as JPEG of high
    quality, a fifth of the size or less and no longer exactly the same pictures. They are taken as they come, a row group in memory at a time, and
    for a bucket the whole file. Of no pictures there is no file. `keep`: see storage.writing."""
    pictures = iter(pictures)
    first = next(pictures, None)
    if first is None:
        return
    kind = pa.large_binary() if store == "jpeg" else pa.binary(first[1].size)
    schema = pa.schema([pa.field("index", pa.int64(), nullable=False), pa.field("image", kind, nullable=False)])
    index, images = np.empty(ROWS_PER_GROUP, np.int64), np.empty((ROWS_PER_GROUP, *first[1].shape), np.uint8)
    # Pictures hardly compress further. One plain page a row group: it can be read without a copy, and one picture at a time (`PixelFile`).
    layout: dict[str, Any] = {"write_batch_size": ROWS_PER_GROUP, "data_page_size": 2**31 - 1}
    count = 0
    with (
        storage.writing(url, keep=keep) as file,
        pq.ParquetWriter(
            file, schema, compression="none", use_dictionary=False, write_statistics=False, **layout
        ) as writer,
    ):
        for number, image in chain([first], pictures):
            place = count % ROWS_PER_GROUP
            index[place], images[place] = number, image
            count += 1
            if place + 1 == ROWS_PER_GROUP:
                writer.write_table(_row_group(index, images, schema))
        if rest := count % ROWS_PER_GROUP:
            writer.write_table(_row_group(index[:rest], images[:rest], schema))


def _row_group(index: np.ndarray, images: np.ndarray, schema: pa.Schema) -> pa.Table:
    kind = schema.field("image").type
    if is_jpeg(kind):
        column = pa.array(
            [simplejpeg.encode_jpeg(image, JPEG_QUALITY, colorsubsampling="444") for image in images], kind
        )
    else:
        column = pa.FixedSizeBinaryArray.from_buffers(kind, len(images), [None, pa.py_buffer(images)])
    return pa.table([pa.array(index, pa.int64()), column], schema=schema)


def read_shard(url: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 (N, size, size, 3) and their manifest rows int64 (N,) of one shard, decoded where it holds JPEG."""
    source = pa.BufferReader(storage.read_bytes(url)) if storage.is_remote(url) else pa.OSFile(storage.absolute(url))
    with pq.ParquetFile(source) as file:
        index, images = (
            np.empty(file.metadata.num_rows, np.int64),
            np.empty((file.metadata.num_rows, size, size, 3), np.uint8),
        )
        start = 0
        for number in range(file.num_row_groups):  # new memory costs more than copying does: never all pictures twice
            table = file.read_row_group(number, use_threads=False)  # threads: see storage.as_table
            part = slice(start, start := start + len(table))
            index[part] = table["index"]
            if not is_jpeg(table["image"].type):
                images[part] = pixels_of(table["image"], size)
                continue
            for image, data in zip(images[part], table["image"], strict=True):
                simplejpeg.decode_jpeg(np.frombuffer(data.as_buffer(), np.uint8), buffer=image)
    return images, index


def is_jpeg(kind: pa.DataType) -> bool:
    return not pa.types.is_fixed_size_binary(kind)


def pixels_of(column: pa.ChunkedArray, size: int) -> np.ndarray:
    """A fixed-size binary column as uint8 (N, size, size, 3), without a copy where it is one chunk."""
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * size * size * 3, chunk.offset * size * size * 3)
        for chunk in column.chunks
    ]
    flat = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, np.uint8)
    return flat.reshape(-1, size, size, 3)


class PixelFile:
    """A local shard of decoded pictures, read one picture at a time: `PixelFile(path, size)[row]` is uint8 (size, size, 3).

    Nothing stays in memory but the places of the row groups, and no file stays open, so that a set of any size can be read at random.
    """

    def __init__(self, path: str, size: int) -> None:
        self.path, self.size = path, size
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        # The one page of a row group is a short header and then the pictures.
        self.starts = [
            column.data_page_offset + column.total_compressed_size - group.num_rows * self._bytes
            for group, column in ((group, group.column(1)) for group in groups)
        ]
        if not all(
            0 < start - group.column(1).data_page_offset < 200 for start, group in zip(self.starts, groups, strict=True)
        ):
            raise UserError(f"{path}: is no shard of decoded pictures of {size} px; prepare the set again")

    @property
    def _bytes(self) -> int:
        return self.size * self.size * 3

    def __getitem__(self, row: int) -> np.ndarray:
        group, within = divmod(int(row), ROWS_PER_GROUP)
        image = np.empty((self.size, self.size, 3), np.uint8)
        file = os.open(self.path, os.O_RDONLY)
        try:
            read = os.preadv(file, [image.data], self.starts[group] + within * self._bytes)
        finally:
            os.close(file)
        if read != self._bytes:
            raise OSError(f"{self.path}: ends within picture {row}; was it changed or cut during the run?")
        return image
