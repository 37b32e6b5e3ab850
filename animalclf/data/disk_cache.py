"""Shards on this node's own disk, read one image at a time: for sets that do not fit into memory.

A local prepared set of decoded images is read in place. Shards in a bucket, and JPEG shards, are decoded once per
node into a folder named by the set's fingerprint; later runs reuse that folder.
"""

from __future__ import annotations

import glob
import os
import shutil
import tempfile

from filelock import FileLock

from animalclf.data.prepared_set import Prepared
from animalclf.data.shards import PixelFile, read_shard, write_shard
from animalclf.errors import UserError
from animalclf.utils import storage

CACHE_VARIABLE = "ANIMALCLF_CACHE"  # environment variable: the cache folder
FREE_BYTES = 2**28  # of the disk, beside the decoded images


def cache_folder() -> str:
    """This node's cache folder: ANIMALCLF_CACHE, or a folder for each user in the system's temporary folder."""
    return os.environ.get(CACHE_VARIABLE) or os.path.join(tempfile.gettempdir(), f"animalclf-{os.getuid()}")


class LocalShards:
    """The shards of a prepared set by number, as `PixelFile`s. A shard that is not readable in place is fetched and
    decoded at its first use."""

    def __init__(self, prepared: Prepared) -> None:
        self.paths, self.size, self.in_place = prepared.shard_paths(), prepared.stored_size, readable_in_place(prepared)
        self.folder = os.path.join(cache_folder(), prepared.fingerprint[:16])
        self.files: dict[int, PixelFile] = {}

    def __getitem__(self, number: int) -> PixelFile:
        if number not in self.files:
            path = self.paths[number]
            self.files[number] = PixelFile(path if self.in_place else self._cached_path(path), self.size)
        return self.files[number]

    def _cached_path(self, url: str) -> str:
        """The path of the decoded shard in the cache. Raises UserError if the disk is full."""
        path = os.path.join(self.folder, os.path.basename(url))
        if not os.path.exists(path):
            os.makedirs(self.folder, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not os.path.exists(path):  # another task of this node may have written it
                    for leftover in glob.glob(f"{glob.escape(path)}.*.tmp"):  # of killed tasks
                        os.remove(leftover)
                    images, index = read_shard(url, self.size)
                    if shutil.disk_usage(self.folder).free < images.nbytes + FREE_BYTES:
                        raise UserError(
                            f"{self.folder}: no room for the decoded images; "
                            f"set the environment variable {CACHE_VARIABLE} to another folder"
                        )
                    write_shard(path, zip(index, images, strict=True))
        return path


def readable_in_place(prepared: Prepared) -> bool:
    """True if single images can be read from the prepared set itself: decoded, and on a file system."""
    return not storage.is_remote(prepared.root) and prepared.info["config"].get("store", "pixels") == "pixels"
