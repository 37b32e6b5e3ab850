"""All files below a remote folder, listed in parallel."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec

from animalclf.utils.storage import filesystem, with_retries

Info = Mapping[str, Any]  # of a file, from fsspec
LISTING_THREADS = 16


def list_files(url: str) -> list[tuple[str, int, str]]:
    """All files below a remote folder, unordered: path within it, bytes, and a stamp (the ETag on S3) that changes with
    the content.

    S3 lists a folder in pages of 1,000 names, one after the other; several folders are therefore listed in parallel.
    """
    fs, root = filesystem(url)
    fs.invalidate_cache()
    infos: dict[str, Info] = {}
    folders = [root]
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        for _ in range(3):  # levels, until there are enough folders for all threads, as in train_images/<class>/
            levels = list(pool.map(lambda folder: _level(fs, url, folder), folders))
            entries = [entry for level in levels for entry in level]
            infos |= {entry["name"]: entry for entry in entries if entry["type"] != "directory"}
            directories = [entry["name"] for entry in entries if entry["type"] == "directory"]
            # A key with "//" gives a folder the name of its parent; such a level is listed whole.
            unsplit = {name.rstrip("/") for name in directories} & set(folders)
            folders = [name for name in directories if name.rstrip("/") not in unsplit]
            folders = [name for name in folders if not any(name.startswith(f"{parent}/") for parent in unsplit)]
            folders += sorted(unsplit)
            if unsplit or len(folders) >= LISTING_THREADS:
                break
        for files in pool.map(lambda folder: with_retries(url, lambda: fs.find(folder, detail=True)), folders):
            infos |= files
    return [
        (name[len(root) + 1 :], int(info.get("size") or 0), _stamp(info))
        for name, info in infos.items()
        if info["type"] != "directory" and not name.endswith("/")
    ]


def _stamp(info: Info) -> str:
    return str(info.get("ETag") or info.get("LastModified") or info.get("mtime") or "")


def _level(fs: fsspec.AbstractFileSystem, url: str, folder: str) -> list[Info]:
    """The files and folders in `folder`; empty if there is none."""
    try:
        return list(with_retries(url, lambda: fs.ls(folder, detail=True)))
    except FileNotFoundError:
        return []
