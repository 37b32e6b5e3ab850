"""Listing the files of a folder or a bucket's prefix."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from animalclf.errors import UserError
from animalclf.utils import storage

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
SYSTEM_NAMES = frozenset(
    [
        "__macosx",
        "thumbs.db",
        "desktop.ini",
        "@eadir",
        "#recycle",
        "@recycle",
        "@recently-snapshot",
        "#snapshot",
        "$recycle.bin",
        "recycler",
        "lost+found",
        "system volume information",
    ]
)
"""Files and folders of operating systems and network drives, in lower case."""


class ListedFile(NamedTuple):
    """A file below a folder: its path relative to the folder, its size, and a stamp that changes with the file."""

    path: str
    bytes: int
    stamp: str


@dataclass(frozen=True, eq=False)
class Listing:
    """`images`: one row per image file, sorted by path: path (relative), bytes (int64), stamp. `ignored`: paths of the
    other files, sorted."""

    images: pd.DataFrame
    ignored: list[str]

    @property
    def top_folders(self) -> pd.Series:
        """The first part of each image's path: a folder, or the file itself."""
        return self.images["path"].str.partition("/")[0]


def list_images(url: str) -> Listing:
    """All images below a folder, without hidden files. Raises UserError for a folder or a name that cannot be read."""
    files = sorted(list_files(url))
    images = [file for file in files if file.path.lower().endswith(IMAGE_SUFFIXES)]
    ignored = [file.path for file in files if not file.path.lower().endswith(IMAGE_SUFFIXES)]
    table = pd.DataFrame(images, columns=list(ListedFile._fields))
    return Listing(table.astype({"path": str, "bytes": "int64", "stamp": str}), ignored)


def list_files(url: str) -> list[ListedFile]:
    """All files below a folder or prefix, without hidden ones."""
    return _list_remote(url) if storage.is_remote(url) else _list_local(url)


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _is_text(name: str) -> bool:
    """Whether a name has no control characters, no line breaks and no bytes that are not UTF-8."""
    return name.isprintable() or not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name)


def _list_local(root: str) -> list[ListedFile]:
    files: list[ListedFile] = []
    pending, visited = [(root, "")], set()
    while pending:
        folder, prefix = pending.pop()
        real = os.path.realpath(folder)
        if real in visited or not os.path.isdir(folder):  # a link to a parent folder would never end
            continue
        visited.add(real)
        try:
            entries = list(os.scandir(folder))
        except PermissionError as error:
            raise UserError(f"{folder}: permission denied; allow reading it, or move the images") from error
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if not _is_text(entry.name):
                raise UserError(f"{folder}: has a file whose name is not printable text, {entry.name!r}; rename it")
            if entry.is_dir():
                pending.append((entry.path, f"{prefix}{entry.name}/"))
            else:
                files.append(ListedFile(f"{prefix}{entry.name}", *_size_and_stamp(entry)))
    return files


def _size_and_stamp(entry: os.DirEntry[str]) -> tuple[int, str]:
    """Bytes and stamp of a file. A dangling link has 0 and "": it is listed, so that it is reported as unreadable."""
    try:
        stat = entry.stat()
    except FileNotFoundError:
        return 0, ""
    return stat.st_size, str(stat.st_mtime_ns)


def _list_remote(root: str) -> list[ListedFile]:
    files = (ListedFile(*file) for file in storage.listing(root))
    return [file for file in files if not any(is_hidden(part) for part in file.path.split("/"))]
