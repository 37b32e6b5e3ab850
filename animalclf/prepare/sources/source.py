"""A data source, the registry of its kinds, and the search for the kind that fits."""

from __future__ import annotations

import hashlib
import os
import posixpath
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import pandas as pd

from animalclf import config as configuration
from animalclf.config import Data
from animalclf.data.prepared_set import INFO, MANIFEST, CorrectionsRecord
from animalclf.errors import UserError
from animalclf.prepare.sources.class_names import check_class_names
from animalclf.prepare.sources.corrections import correct, decisions_hash
from animalclf.prepare.sources.listing import (
    COMMON_SUFFIXES,
    Listing,
    link_warning,
    list_images,
    name_warning,
    video_warning,
)
from animalclf.prepare.sources.masks import mask_warning
from animalclf.utils import storage
from animalclf.utils.file_names import ARCHIVES, skipped_example
from animalclf.utils.registry import Registry


@dataclass(frozen=True, eq=False)
class Source:
    """The images of a source. `files`: one row per image, sorted by path: path (relative to `root`), label ("" if
    unlabelled), split ("" if not given), bytes (int64), stamp (changes with the file). `ignored`: paths of files that
    are not images."""

    root: str
    files: pd.DataFrame
    kind: str
    ignored: list[str] = field(default_factory=list)
    test: str | None = None
    """The folder of unlabelled test images beside the labelled ones."""
    sample_submission: str | None = None
    whole_folder: bool = True
    """Whether every image in `root` belongs to the source."""
    warnings: list[str] = field(default_factory=list)
    """Problems of the listing that do not stop the work."""
    corrections: CorrectionsRecord | None = None
    """The corrections that `files` has."""


@dataclass(frozen=True)
class Location:
    """The data that a user named, and how it is to be read."""

    data: str
    """As the user wrote it, for messages."""
    config: Data
    labelled: bool = True
    """False for images to predict, which need no labels."""
    classes: frozenset[str] = frozenset()
    """The classes that a model knows: images to evaluate may have fewer. Empty for images to train on."""

    @property
    def url(self) -> str:
        """The absolute path or URL."""
        return storage.absolute(self.data)

    @cached_property
    def listing(self) -> Listing:
        """The images in the folder, listed once. Raises UserError if there are none."""
        listing = list_images(self.url)
        self._check_no_prepared_set(listing)
        if listing.images.empty:
            if not storage.with_retries(self.url, lambda: storage.exists(self.url)):
                raise UserError(f"{self.data}: no such folder or file")
            if storage.is_file(self.url):
                raise UserError(f"{self.data}: is a file; name a folder of images, or a table (.csv, .tsv or .parquet)")
            count, suffixes = len(listing.ignored), ", ".join(COMMON_SUFFIXES)
            others = f"; it has {count:,} other files, such as {skipped_example(listing.ignored)}" if count else ""
            raise UserError(f"{self.data}: no images found ({suffixes} and other formats, by their content){others}")
        return listing

    def _check_no_prepared_set(self, listing: Listing) -> None:
        """Raise UserError for a prepared set and for a folder of such sets, whose only images are sheets of
        near-duplicates."""
        sets = [os.path.dirname(path) for path in listing.ignored if os.path.basename(path) == INFO]
        sets = [folder for folder in sets if posixpath.join(folder, MANIFEST) in listing.ignored]
        if not sets or not {os.path.dirname(path) for path in listing.images["path"]} <= {*sets}:
            return
        if sets[0]:
            raise UserError(f"{self.data}: holds prepared sets; name one: {storage.join(self.data, sets[0])}")
        raise UserError(
            f"{self.data}: is a prepared set, not the images; `train`, `compare` and `evaluate` take it as --data"
        )


class SourceReader(ABC):
    """A kind of source."""

    priority: ClassVar[int] = 100
    """Of the kinds that match, the one with the highest priority reads. Kinds that use the listing have a priority
    below 50, so that nothing is listed for the others."""

    @abstractmethod
    def matches(self, location: Location) -> bool:
        """Whether the location is of this kind."""

    @abstractmethod
    def read(self, location: Location) -> Source:
        """The source. Raises UserError with what was expected, what is there, and what to do."""


SOURCES: Registry[type[SourceReader]] = Registry("data source", package="animalclf.prepare.sources")


def find(data: str, config: Data, *, labelled: bool = True, classes: Collection[str] = ()) -> Source:
    """The images that `data` names. With `labelled=False` those to predict: a file, the images of any folder, or a
    competition folder's test images. With `classes`, the classes of a model, those to evaluate: one class is enough,
    and class folders may be empty. Images to train on get the corrections of `config.corrections`.

    Raises UserError with what was expected and what is there for: nothing, an archive, a folder without class
    folders, one class only, an empty class folder, a table with missing columns or files.
    """
    location = Location(data, config, labelled, frozenset(classes))
    url = location.url
    if url.lower().endswith(ARCHIVES) and storage.with_retries(url, lambda: storage.exists(url)):
        raise UserError(f"{data}: is an archive; unpack it and name the folder")
    readers = sorted((reader() for reader in SOURCES.entries().values()), key=lambda reader: -reader.priority)
    source = next(reader for reader in readers if reader.matches(location)).read(location)
    check_class_names(source.files["label"].unique(), data)
    if config.splits == "ignore":
        source = replace(source, files=source.files.assign(split=""))
    if config.corrections and labelled and not classes:
        files, record = correct(source.files, config.corrections, data)
        source = replace(source, files=files, corrections=record)
    warnings = video_warning(source.ignored)
    if "listing" in vars(location):  # a kind that lists the folder
        listing = location.listing
        warnings += link_warning(listing) + name_warning(listing.escaped) + mask_warning(listing.masks)
    return replace(source, warnings=[*source.warnings, *warnings])


def inputs_hash(source: Source, config: Data) -> str:
    """A fingerprint (hex) of the listing, the corrections and the settings. It needs no file contents, and changes with
    any file, decision or setting."""
    digest = hashlib.sha256(f"{source.root}\n{configuration.hashed_json(config)}\n".encode())
    columns = [source.files[name].astype(str) for name in ("path", "label", "split", "bytes", "stamp")]
    digest.update("\n".join("\t".join(row) for row in zip(*columns, strict=True)).encode())
    digest.update(decisions_hash(source.corrections).encode())
    return digest.hexdigest()
