"""Listing the files of a folder or a bucket's prefix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

import pandas as pd

from animalclf.data.formats import HEAD_BYTES, RAW_SUFFIXES, image_format
from animalclf.errors import UserError
from animalclf.prepare.sources.masks import find_masks
from animalclf.utils import remote_listing, storage
from animalclf.utils.file_names import as_text, is_text

COMMON_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
IMAGE_SUFFIXES = (
    *COMMON_SUFFIXES,
    *(
        ".jpe",
        ".jfif",
        ".jif",
        ".mpo",
        ".apng",
        ".dib",
        ".avif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".j2k",
        ".tga",
    ),
    *(".heic", ".heif", ".hif", ".jxl", ".svg", *RAW_SUFFIXES),  # refused by the decoder with the remedy
)
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".mts")
OTHER_SUFFIXES = (
    *VIDEO_SUFFIXES,
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log", ".md"),
    *(
        ".html",
        ".htm",
        ".css",
        ".js",
        ".py",
        ".ipynb",
        ".sh",
        ".pdf",
        ".doc",
        ".docx",
        ".xls",
        ".xlsx",
        ".ppt",
        ".pptx",
    ),
    *(".parquet", ".npy", ".npz", ".pkl", ".h5", ".mat", ".db", ".sqlite", ".pt", ".pth", ".onnx", ".safetensors"),
    *(".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".wav", ".mp3", ".aae", ".xmp", ".lnk", ".url"),
)
"""Never images. Files of any other name are images if their first bytes are those of one."""
SYSTEM_NAMES = frozenset(
    [
        "__macosx",
        "thumbs.db",
        "desktop.ini",
        "icon\r",
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
    other files, sorted, the hidden ones last; a hidden folder is one path. `links`: the links that lead out of the
    folder, with their targets. `escaped`: the files and folders whose names have escapes. `repeated`: the links to
    folders that are listed already, with these folders. `masks`: those of `ignored` that are masks of images."""

    images: pd.DataFrame
    ignored: list[str]
    links: list[tuple[str, str]] = field(default_factory=list)
    escaped: list[str] = field(default_factory=list)
    repeated: list[tuple[str, str]] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)

    @property
    def top_folders(self) -> pd.Series:
        """The first part of each image's path: a folder, or the file itself."""
        return self.images["path"].str.partition("/")[0]


def list_images(url: str) -> Listing:
    """All images below a folder, without hidden files. Raises UserError for a folder that cannot be read."""
    files, hidden, links, escaped, repeated = list_files(url)
    unknown = [file for file in files if file.bytes and not file.path.lower().endswith(IMAGE_SUFFIXES + OTHER_SUFFIXES)]
    heads = storage.read_heads(url, [file.path for file in unknown], HEAD_BYTES)
    # A file that cannot be read may be an image: it is listed, so that it is reported as unreadable.
    images_by_content = {
        file.path for file, head in zip(unknown, heads, strict=True) if head is None or image_format(head)
    }
    images = [f for f in sorted(files) if f.path.lower().endswith(IMAGE_SUFFIXES) or f.path in images_by_content]
    masks = find_masks([file.path for file in images])
    is_mask = set(masks)
    images = [file for file in images if file.path not in is_mask]
    used = {file.path for file in images}
    ignored = sorted(file.path for file in files if file.path not in used)
    table = pd.DataFrame(images, columns=list(ListedFile._fields))
    table = table.astype({"path": str, "bytes": "int64", "stamp": str})
    return Listing(table, ignored + sorted(hidden), sorted(links), sorted(escaped), sorted(repeated), masks)


def video_warning(ignored: Sequence[str]) -> list[str]:
    """A warning if files of a source are videos."""
    videos = [path for path in ignored if path.lower().endswith(VIDEO_SUFFIXES)]
    if not videos:
        return []
    return [f"{len(videos):,} videos are not used, such as {videos[0]}; save frames of them as images to use them"]


class Files(NamedTuple):
    """All files below a folder or prefix, without hidden ones; the paths of the hidden files and folders; the links
    that lead out of the folder, with their targets; the files and folders whose names have escapes (see as_text); the
    links to folders that are listed already, with these folders."""

    files: list[ListedFile]
    hidden: list[str]
    links: list[tuple[str, str]]
    escaped: list[str]
    repeated: list[tuple[str, str]]


def link_warning(listing: Listing) -> list[str]:
    """Warnings if links lead out of the folder, or to a folder that is listed already."""
    kinds = [
        (listing.links, "out of the folder", "what they lead to is used"),
        (listing.repeated, "to a folder that is read already", "its images are used once"),
    ]
    return [
        f"{'1 link leads' if len(links) == 1 else f'{len(links):,} links lead'} {where}, "
        f"such as {links[0][0]} to {links[0][1]}; {effect}"
        for links, where, effect in kinds
        if links
    ]


def name_warning(escaped: Sequence[str]) -> list[str]:
    """A warning if names are not text."""
    if not escaped:
        return []
    count = "1 name is" if len(escaped) == 1 else f"{len(escaped):,} names are"
    return [f"{count} not UTF-8 text without control characters, such as {escaped[0]}: used with these escapes"]


def list_files(url: str) -> Files:
    """The files below a folder or prefix. Raises UserError for a folder that cannot be read."""
    return _list_remote(url) if storage.is_remote(url) else _list_local(url)


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _list_local(root: str) -> Files:
    files: list[ListedFile] = []
    hidden: list[str] = []
    links: list[tuple[str, str]] = []
    escaped: list[str] = []
    repeated: list[tuple[str, str]] = []
    inside = f"{os.path.realpath(root)}/"
    pending, linked, visited = [("", root)], list[tuple[str, str]](), dict[str, str]()
    while pending or linked:  # links last and sorted: of a folder and a link to it, the folder is listed
        prefix, folder = pending.pop() if pending else heappop(linked)
        real = os.path.realpath(folder)
        if real in visited:  # a link to a parent folder would never end
            repeated.append((prefix.rstrip("/"), visited[real] or "the folder itself"))
            continue
        if not os.path.isdir(folder):
            continue
        visited[real] = prefix
        try:
            entries = list(os.scandir(folder))
        except PermissionError as error:
            raise UserError(f"{folder}: permission denied; allow reading it, or move the images") from error
        for entry in entries:
            if is_hidden(entry.name):
                hidden.append(f"{prefix}{as_text(entry.name)}")
                continue
            path = f"{prefix}{as_text(entry.name)}"
            if not is_text(entry.name):
                if os.path.lexists(os.path.join(folder, as_text(entry.name))):  # a file that has this name already
                    hidden.append(path)
                    continue
                escaped.append(path)
            target = os.path.realpath(entry.path) if entry.is_symlink() else ""
            # A link to nothing is listed as an unreadable image.
            if target and not f"{target}/".startswith(inside) and os.path.exists(target):
                links.append((path, as_text(target)))
            if not _is_folder(entry):
                files.append(ListedFile(path, *_size_and_stamp(entry)))
            elif entry.is_symlink():
                heappush(linked, (f"{path}/", entry.path))
            else:
                pending.append((f"{path}/", entry.path))
    return Files(files, hidden, links, escaped, repeated)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _size_and_stamp(entry: os.DirEntry[str]) -> tuple[int, str]:
    """Bytes and stamp of a file. A link that leads nowhere has 0 and "": it is listed, so that it is reported as
    unreadable."""
    try:
        stat = entry.stat()
    except OSError:
        return 0, ""
    return stat.st_size, str(stat.st_mtime_ns)


def _list_remote(root: str) -> Files:
    files, hidden = [], set()
    for file in (ListedFile(*row) for row in remote_listing.list_files(root)):
        parts = file.path.split("/")
        depth = next((number for number, part in enumerate(parts) if is_hidden(part)), None)
        if depth is None:
            files.append(file)
        else:
            hidden.add("/".join(parts[: depth + 1]))
    return Files(files, list(hidden), [], [], [])
