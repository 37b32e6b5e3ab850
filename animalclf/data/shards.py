"""The prepared set: a folder or bucket prefix with the manifest, `dataset.json` and a few large Parquet shards of decoded uint8 pictures."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from animalclf import storage
from animalclf.errors import UserError

FORMAT = 1
MANIFEST = "manifest.parquet"
INFO = "dataset.json"  # written last: its presence says that the set is whole
ROWS_PER_GROUP = 256


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
        raise UserError(f"{root}: no prepared set here ({INFO} is missing); make one with: animalclf prepare --data PICTURES --out {root}") from error
    if info.get("format") != FORMAT:
        raise UserError(f"{root}: prepared set of format {info.get('format')}, this version reads {FORMAT}; prepare it again")
    manifest = pd.read_parquet(io.BytesIO(storage.read_bytes(storage.join(root, MANIFEST))))
    return Prepared(root, info, manifest)


def is_prepared(root: str) -> bool:
    return storage.exists(storage.join(root, INFO))


def write_shard(url: str, images: np.ndarray, index: np.ndarray) -> None:
    """Write uint8 pictures (N, S, S, 3) and their manifest rows int64 (N,) as one Parquet file, whole or not at all."""
    count = len(images)
    width = int(np.prod(images.shape[1:]))
    pixels = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), count, [None, pa.py_buffer(np.ascontiguousarray(images))])
    table = pa.table({"index": pa.array(index, pa.int64()), "image": pixels})
    sink = io.BytesIO()
    # Decoded pictures hardly compress, and plain pages can be read without a copy.
    pq.write_table(table, sink, row_group_size=ROWS_PER_GROUP, compression="none", use_dictionary=False, write_statistics=False)
    storage.write_bytes(url, sink.getvalue())


def read_shard(url: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 (N, size, size, 3) and their manifest rows int64 (N,) of one shard."""
    fs, path = storage.filesystem(url)
    with fs.open(path, "rb") as file:
        table = pq.read_table(file).combine_chunks()
    return pixels_of(table["image"], size), table["index"].to_numpy()


def pixels_of(column: pa.ChunkedArray, size: int) -> np.ndarray:
    """A fixed-size binary column as uint8 (N, size, size, 3), without a copy where it is one chunk."""
    parts = [np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * size * size * 3, chunk.offset * size * size * 3) for chunk in column.chunks]
    flat = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, np.uint8)
    return flat.reshape(-1, size, size, 3)
