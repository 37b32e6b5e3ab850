"""Rows of bytes in a file, in place of an array."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from animalclf.duplicates import find
from animalclf.utils import row_file
from animalclf.utils.row_file import RowFile, zero_rows


def test_a_file_has_the_rows_of_an_array() -> None:
    generator, array, file = np.random.default_rng(0), np.zeros((50, 7), np.uint8), RowFile(50, 7)
    for size in (1, 20, 0):
        rows = generator.permutation(50)[:size]
        values = generator.integers(0, 256, (14, size), np.uint8).T[:, ::2]  # neither contiguous nor in order
        array[rows] = values
        file[rows] = values
    for rows in (np.arange(50), np.array([3, 4, 5, 9, 8, 8, 9, 49, 0]), np.array([7]), np.empty(0, np.int64)):
        assert np.array_equal(file[rows], array[rows])


def test_many_rows_are_in_a_file_without_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(row_file, "MAX_BYTES", 100)
    assert isinstance(zero_rows(10, 10), np.ndarray) and isinstance(zero_rows(11, 10), RowFile)
    assert list(tmp_path.iterdir()) == []


def test_what_the_system_reads_in_parts_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    file, preadv = RowFile(20, 10), os.preadv
    values = np.arange(200, dtype=np.uint8).reshape(20, 10)
    file[np.arange(20)] = values
    monkeypatch.setattr(os, "preadv", lambda number, parts, position: preadv(number, [parts[0][:7]], position))
    assert np.array_equal(file[np.arange(3, 20)], values[3:])
    monkeypatch.setattr(os, "preadv", lambda *_: 0)
    with pytest.raises(OSError, match="rows 0 to 1 were not read whole"):
        file[np.arange(1)]


def test_rows_are_in_memory_where_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_file, "MAX_BYTES", 100)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    rows = zero_rows(11, 10)
    assert isinstance(rows, np.ndarray) and not rows.any()


def test_near_duplicates_are_the_same_with_signatures_in_a_file() -> None:
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (60, 80, 3), np.uint8) for _ in range(12)]
    images += [images[row][:, ::-1] for row in (1, 5)]
    array = np.stack([find.signature(image) for image in images])
    file = RowFile(*array.shape)
    file[np.arange(len(array))] = array
    sha256 = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    in_memory, in_file = (find.find_duplicates(sha256, rows, lambda row: images[row]) for rows in (array, file))
    assert in_memory.equals(in_file) and in_file["kind"].tolist()[12:] == ["near", "near"]
