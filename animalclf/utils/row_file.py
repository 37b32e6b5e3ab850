"""Rows of bytes of a large set: in an array, or in a file without a name, so that they take no memory."""

from __future__ import annotations

import os
import tempfile
from itertools import pairwise

import numpy as np

MAX_BYTES = 256 * 2**20  # in an array


class RowFile:
    """In place of an array uint8 (count, width), at first zeros, of which rows are set and taken by their numbers. The
    file is in the folder for temporary files and has no name, so that it ends with the process."""

    def __init__(self, count: int, width: int) -> None:
        """Raises OSError if the file system has no room."""
        self.width = width
        self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (closed with the process)
        try:
            os.posix_fallocate(self.file.fileno(), 0, count * width)
        except BaseException:
            self.file.close()
            raise

    def __setitem__(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Set rows int64 (N,) to uint8 (N, width)."""
        for row, value in zip(rows.tolist(), np.ascontiguousarray(values), strict=True):
            os.pwrite(self.file.fileno(), value.data, row * self.width)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (N, width) of rows int64 (N,). Neighbours are read together; any thread may read. Raises OSError if a
        row cannot be read whole."""
        taken = np.empty((len(rows), self.width), np.uint8)
        edges = [*np.flatnonzero(np.diff(rows, prepend=-2) != 1).tolist(), len(rows)]
        for start, stop in pairwise(edges):
            part, position = taken[start:stop].reshape(-1).data, int(rows[start]) * self.width
            while len(part):  # a read ends at 2 GB
                if not (count := os.preadv(self.file.fileno(), [part], position)):
                    raise OSError(f"{self.file.name}: rows {start} to {stop} were not read whole")
                part, position = part[count:], position + count
        return taken


Rows = np.ndarray | RowFile


def zero_rows(count: int, width: int) -> Rows:
    """An array uint8 (count, width) of zeros, or of more than MAX_BYTES a RowFile, if the temporary folder has room."""
    if count * width > MAX_BYTES and hasattr(os, "posix_fallocate"):
        try:
            return RowFile(count, width)
        except OSError:
            pass
    return np.zeros((count, width), np.uint8)
