"""Files below a folder or a bucket's prefix."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pandas as pd

from animalclf.errors import UserError
from animalclf.utils import storage

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
IGNORED_NAMES = ("__macosx", "thumbs.db", "desktop.ini")

FileRow = tuple[str, int, str]  # path relative to the folder, bytes, stamp (changes when the file does)


@dataclass(frozen=True, eq=False)
class Listing:
    """`images`: one row an image file, sorted by path: path (relative), bytes (int64), stamp. `ignored`: paths of the other files, sorted."""

    images: pd.DataFrame
    ignored: list[str]

    @property
    def top_folders(self) -> pd.Series:
        """The first part of each image's path: a folder, or the file itself."""
        return self.images["path"].str.partition("/")[0]


def list_images(url: str) -> Listing:
    """All images below a folder. Hidden files do not exist. Raises UserError for a folder or a name that cannot be read."""
    rows = list_files(url)
    images = sorted(row for row in rows if row[0].lower().endswith(IMAGES))
    ignored = sorted(row[0] for row in rows if not row[0].lower().endswith(IMAGES))
    table = pd.DataFrame(images, columns=["path", "bytes", "stamp"]).astype(
        {"path": str, "bytes": "int64", "stamp": str}
    )
    return Listing(table, ignored)


def list_files(url: str) -> list[FileRow]:
    """All files below a folder or prefix, without hidden ones."""
    return _list_remote(url) if storage.is_remote(url) else _list_local(url)


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED_NAMES


def _list_local(root: str) -> list[FileRow]:
    rows, waiting, seen = [], [(root, "")], set()
    while waiting:
        folder, prefix = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen or not os.path.isdir(folder):  # a link back up would be followed without end
            continue
        seen.add(real)
        try:
            entries = list(os.scandir(folder))
        except PermissionError as error:
            raise UserError(f"{folder}: may not be read; give yourself permission, or move the pictures") from error
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if not entry.name.isprintable() or any("\udc80" <= letter <= "\udcff" for letter in entry.name):
                raise UserError(f"{folder}: holds a file whose name is not readable text, {entry.name!r}; rename it")
            if entry.is_dir():
                waiting.append((entry.path, f"{prefix}{entry.name}/"))
            else:
                rows.append((f"{prefix}{entry.name}", *file_facts(entry)))
    return rows


def file_facts(entry: os.DirEntry[str]) -> tuple[int, str]:
    """Bytes and stamp of a file. A link to nothing has neither: it is listed, so that preparation reports it as unreadable."""
    try:
        stat = entry.stat()
    except FileNotFoundError:
        return 0, ""
    return stat.st_size, str(stat.st_mtime_ns)


def _list_remote(root: str) -> list[FileRow]:
    return [row for row in storage.listing(root) if not any(is_hidden(part) for part in row[0].split("/"))]
