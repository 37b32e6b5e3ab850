"""Folders of images: <class>/image, <split>/<class>/image or <class>/<split>/image, at any depth below. `layout.py`
distinguishes them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from animalclf.errors import UserError
from animalclf.prepare.sources.layout import MAX_SHOWN, classes_in_names, deeper_root, read_layout, shared_folders
from animalclf.prepare.sources.listing import Listing, is_hidden
from animalclf.prepare.sources.source import SOURCES, Location, Source, SourceReader
from animalclf.utils import storage
from animalclf.utils.file_names import as_text

TABLES = (".csv", ".tsv", ".parquet")
ANNOTATIONS = (".json", ".jsonl", ".xml")
NOT_LABELS = re.compile(r"(?i)sample|submission|test")  # in the names of tables


@SOURCES.register("folders")
class Folders(SourceReader):
    priority = 0  # the fallback: reads what no other kind matches

    def matches(self, location: Location) -> bool:
        return True

    def read(self, location: Location) -> Source:
        splits = location.config.splits != "none"
        return read_folders(location.url, location.data, location.listing, splits=splits, known=location.classes)


def read_folders(url: str, data: str, listing: Listing, *, splits: bool = True, known: Collection[str] = ()) -> Source:
    """The source of the folder `url` with this listing; messages call it `data`. `splits`: see read_layout. Raises
    UserError for a layout that is not known, and, unless all its classes are `known`, for class folders without images
    and for fewer than two classes."""
    try:
        layout = read_layout(listing.images, data, splits=splits)
    except UserError as error:
        raise UserError(f"{error}{other_reading(listing)}") from error
    classes = layout.images["label"].unique()
    evaluated = bool(known) and set(classes) <= set(known)
    if len(classes) < 2 and not evaluated:
        problem = "the model does not know it" if known else "a classifier needs at least two class folders"
        hint = deeper_root(listing.images["path"])
        remedy = f"; {data}/{hint} has two or more folders of images: name that one" if hint else other_reading(listing)
        raise UserError(f"{data}: only one class, {classes[0]!r}; {problem}{remedy}")
    if layout.kind == "class folders" and not evaluated:
        _refuse_empty_folders(url, set(classes), data)
    test = storage.join(url, layout.unlabelled) if layout.unlabelled else None
    warnings = [f"{layout.unlabelled}/ has no class folders; its images are not used for training"] if test else []
    if layout.kind == "class folders" and (inner := shared_folders(layout.images["path"])):
        warnings.append(
            f"all class folders have the same folders ({', '.join(inner[:MAX_SHOWN])}); if those are the classes, "
            "name one of the folders above them, or move their images into one folder per class"
        )
    return Source(url, layout.images, layout.kind, listing.ignored, test=test, warnings=warnings)


def other_reading(listing: Listing) -> str:
    """The end of an error for folders that are no classes: where the classes may be instead. Empty if nothing shows
    it."""
    names = classes_in_names(listing.images["path"])
    if names:
        return (
            f"; the class seems to be part of the file names ({', '.join(names[:MAX_SHOWN])}): "
            "write a table of the images with the columns path and label, and name it"
        )
    tables = [path for path in listing.ignored if path.lower().endswith(TABLES) and not is_hidden(path)]
    tables = [path for path in tables if not NOT_LABELS.search(path)]
    if tables:
        return f"; if {tables[0]} has the classes of the images, name it instead of the folder"
    annotations = [path for path in listing.ignored if path.lower().endswith(ANNOTATIONS) and not is_hidden(path)]
    if not annotations:
        return ""
    return (
        f"; if {annotations[0]} has the classes of the images, write them as a CSV with the columns path and label, "
        "and name it instead of the folder"
    )


def _refuse_empty_folders(url: str, classes: set[str], data: str) -> None:
    if storage.is_remote(url):
        return
    folders = sorted(as_text(entry.name) for entry in os.scandir(url) if entry.is_dir() and not is_hidden(entry.name))
    empty = [name for name in folders if name not in classes]
    if empty:
        raise UserError(f"{data}: class folders without images: {', '.join(empty[:5])}; add images or remove them")
