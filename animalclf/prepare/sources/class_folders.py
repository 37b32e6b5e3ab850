"""Class folders: root/<class>/**/image. The label is the name of the first folder."""

from __future__ import annotations

import os

from animalclf.errors import UserError
from animalclf.prepare.sources.listing import Listing, is_hidden
from animalclf.prepare.sources.source import SOURCES, Location, Source, SourceReader
from animalclf.utils import storage


@SOURCES.register("class folders")
class ClassFolders(SourceReader):
    priority = 0  # the fallback: reads what no other kind matches

    def matches(self, location: Location) -> bool:
        return True

    def read(self, location: Location) -> Source:
        return read_class_folders(location.url, location.data, location.listing)


def read_class_folders(url: str, data: str, listing: Listing) -> Source:
    """The source of the folder `url` with this listing; messages call it `data`. Raises UserError for images outside
    class folders, for class folders without images and for fewer than two classes."""
    parts = listing.images["path"].str.partition("/")
    outside = listing.images["path"][parts[1] == ""]
    if len(outside):
        raise UserError(
            f"{data}: {len(outside):,} images are outside any class folder, such as {outside.iloc[0]}; "
            f"expected {data}/<class>/image.jpg. "
            "Move them into class folders, or name a CSV with the columns path and label"
        )
    source = Source(url, listing.images.assign(label=parts[0], split=""), "class folders", listing.ignored)
    _refuse_empty_folders(source, data)
    refuse_single_class(source, data)
    return source


def _refuse_empty_folders(source: Source, data: str) -> None:
    if storage.is_remote(source.root):
        return
    folders = sorted(entry.name for entry in os.scandir(source.root) if entry.is_dir() and not is_hidden(entry.name))
    classes = set(source.files["label"])
    empty = [name for name in folders if name not in classes]
    if empty:
        raise UserError(f"{data}: class folders without images: {', '.join(empty[:5])}; add images or remove them")


def refuse_single_class(source: Source, data: str) -> None:
    """Raise UserError for a source with fewer than two classes."""
    classes = source.files["label"].unique()
    if len(classes) < 2:
        raise UserError(f"{data}: only one class, {classes[0]!r}; a classifier needs at least two class folders")
