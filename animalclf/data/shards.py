"""The shards of a prepared set: Parquet files of decoded images, or of JPEG bytes, by manifest row."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from animalclf.errors import UserError
from animalclf.utils import storage
from animalclf.utils.text import reason

ROWS_PER_GROUP = 256
JPEG_QUALITY = 95
MAX_PAGE_HEADER = 200  # bytes
PREPARE_AGAIN = "prepare it again with: animalclf prepare --force"


def write_shard(
    url: str, images: Iterable[tuple[int, np.ndarray]], store: str = "pixels", *, sync: bool = True
) -> None:
    """Write manifest rows and their images uint8 (S, S, 3) as one Parquet file, completely or not at all.

    `store` "pixels" writes decoded pixels. "jpeg" writes JPEG of quality 95: a fifth of the size or less, and not
    exactly the same pixels. A local file takes the memory of one row group, a file in a bucket that of all images.
    Without images no file is written. `sync`: see storage.atomic_write.
    """
    images = iter(images)
    first = next(images, None)
    if first is None:
        return
    kind = pa.large_binary() if store == "jpeg" else pa.binary(first[1].size)
    schema = pa.schema([pa.field("index", pa.int64(), nullable=False), pa.field("image", kind, nullable=False)])
    indices, pixels = np.empty(ROWS_PER_GROUP, np.int64), np.empty((ROWS_PER_GROUP, *first[1].shape), np.uint8)
    count = 0
    # Images hardly compress further. One plain page per row group is read without a copy, and image by image
    # (`PixelFile`).
    with (
        storage.atomic_write(url, sync=sync) as file,
        pq.ParquetWriter(
            file,
            schema,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            write_batch_size=ROWS_PER_GROUP,
            data_page_size=2**31 - 1,
            write_page_checksum=True,
        ) as writer,
    ):
        for index, image in chain([first], images):
            position = count % ROWS_PER_GROUP
            indices[position], pixels[position] = index, image
            count += 1
            if position + 1 == ROWS_PER_GROUP:
                writer.write_table(_row_group(indices, pixels, schema))
        if rest := count % ROWS_PER_GROUP:
            writer.write_table(_row_group(indices[:rest], pixels[:rest], schema))


def _row_group(indices: np.ndarray, images: np.ndarray, schema: pa.Schema) -> pa.Table:
    kind = schema.field("image").type
    if is_jpeg(kind):
        encoded = [simplejpeg.encode_jpeg(image, JPEG_QUALITY, colorsubsampling="444") for image in images]
        column = pa.array(encoded, kind)
    else:
        column = pa.FixedSizeBinaryArray.from_buffers(kind, len(images), [None, pa.py_buffer(images)])
    return pa.table([pa.array(indices, pa.int64()), column], schema=schema)


class MissingShard(UserError):
    """A shard of a prepared set that is not there."""


def read_shard(url: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, size, size, 3) and their manifest rows int64 (N,) of one shard, decoded if it holds JPEG.
    Raises UserError for a damaged file, MissingShard if there is none."""
    try:
        return _read_shard(url, size)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise MissingShard(f"{url}: is missing; {PREPARE_AGAIN}") from error
    except Exception as error:  # Arrow raises errors of many types for damaged files
        raise UserError(f"{url}: not a readable shard of {size} px ({reason(error)}); {PREPARE_AGAIN}") from error


def _read_shard(url: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    source = pa.BufferReader(storage.read_bytes(url)) if storage.is_remote(url) else pa.OSFile(storage.absolute(url))
    with pq.ParquetFile(source, page_checksum_verification=True) as file:
        storage.check_plain_types(file.schema_arrow)
        count, start = file.metadata.num_rows, 0
        images, index = np.empty((count, size, size, 3), np.uint8), np.empty(count, np.int64)
        for number in range(file.num_row_groups):  # one group at a time: all at once would take twice the memory
            table = file.read_row_group(number, use_threads=False)  # threads: see storage.parse_parquet
            part = slice(start, start := start + len(table))
            index[part] = table["index"]
            if not is_jpeg(table["image"].type):
                images[part] = pixels_of(table["image"], size)
                continue
            for image, data in zip(images[part], table["image"], strict=True):
                simplejpeg.decode_jpeg(np.frombuffer(data.as_buffer(), np.uint8), buffer=image)
    if start != count:  # the checksums do not cover the lengths
        raise ValueError(f"{start:,} of {count:,} rows")
    return images, index


def is_jpeg(kind: pa.DataType) -> bool:
    """True for the column type of JPEG bytes."""
    return not pa.types.is_fixed_size_binary(kind)


def pixels_of(column: pa.ChunkedArray, size: int) -> np.ndarray:
    """A fixed-size binary column as uint8 (N, size, size, 3), without a copy if it is one chunk."""
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * size * size * 3, chunk.offset * size * size * 3)
        for chunk in column.chunks
    ]
    flat = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, np.uint8)
    return flat.reshape(-1, size, size, 3)


class PixelFile:
    """A local shard of decoded images, read one image at a time: `PixelFile(path, size)[row]` is uint8 (size, size, 3).

    Only the offsets of the row groups stay in memory and no file stays open, so that a set of any size can be read at
    random.
    """

    def __init__(self, path: str, size: int) -> None:
        """Raises UserError if the file is not a shard of decoded images of this size."""
        self.path, self.size = path, size
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        self.offsets = []
        for group in groups:
            column = group.column(1)  # one page: a short header, then the images
            offset = column.data_page_offset + column.total_compressed_size - group.num_rows * self._image_bytes
            if not 0 < offset - column.data_page_offset < MAX_PAGE_HEADER:
                raise UserError(f"{path}: not a shard of decoded images of {size} px; prepare the set again")
            self.offsets.append(offset)

    @property
    def _image_bytes(self) -> int:
        return self.size * self.size * 3

    def __getitem__(self, row: int) -> np.ndarray:
        """Raises OSError if the file ends within the image."""
        group, position = divmod(int(row), ROWS_PER_GROUP)
        image = np.empty((self.size, self.size, 3), np.uint8)
        file = os.open(self.path, os.O_RDONLY)
        try:
            count = os.preadv(file, [image.data], self.offsets[group] + position * self._image_bytes)
        finally:
            os.close(file)
        if count != self._image_bytes:
            raise OSError(f"{self.path}: ends within image {row}; was it changed or cut during the run?")
        return image
