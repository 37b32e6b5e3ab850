"""Shards on this node's own disk, read one picture at a time: for sets that do not fit into memory. Plain Python.

A local prepared set of decoded pictures is read where it lies. Shards in a bucket, and JPEG shards, are copied once a node, decoded, into a
folder named by the set's fingerprint; runs after that find them there.
"""

from __future__ import annotations

import os
import shutil
import tempfile

from filelock import FileLock

from animalclf.data.prepared_set import PixelFile, Prepared, read_shard, write_shard
from animalclf.errors import UserError
from animalclf.utils import storage

FOLDER = "ANIMALCLF_CACHE"  # environment variable: where copies go (default: a folder of the user's in the system's temporary folder)


def folder() -> str:
    """Where this node's copies lie."""
    return os.environ.get(FOLDER) or os.path.join(tempfile.gettempdir(), f"animalclf-{os.getuid()}")


class LocalShards:
    """The shards of a prepared set by number, as `PixelFile`s; each is fetched and decoded when it is first asked for, unless it lies there."""

    def __init__(self, prepared: Prepared) -> None:
        self.paths, self.size, self.direct = prepared.shard_paths(), prepared.stored_size, readable_in_place(prepared)
        self.folder = os.path.join(folder(), prepared.fingerprint[:16])
        self.files: dict[int, PixelFile] = {}

    def __getitem__(self, number: int) -> PixelFile:
        if number not in self.files:
            path = self.paths[number]
            self.files[number] = PixelFile(path if self.direct else self._copy(path), self.size)
        return self.files[number]

    def _copy(self, url: str) -> str:
        path = os.path.join(self.folder, os.path.basename(url))
        if not os.path.exists(path):
            os.makedirs(self.folder, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not os.path.exists(path):  # the tasks of a node: the first fetches, the others then find it
                    images, index = read_shard(url, self.size)
                    if shutil.disk_usage(self.folder).free < images.nbytes + 2**28:
                        raise UserError(
                            f"{self.folder}: no room for the decoded pictures; name another folder with the variable {FOLDER}"
                        )
                    write_shard(path, zip(index, images, strict=True))
        return path


def readable_in_place(prepared: Prepared) -> bool:
    """True where single pictures can be read from the prepared set itself: decoded and on a file system."""
    return not storage.is_remote(prepared.root) and prepared.info["config"].get("store", "pixels") == "pixels"
