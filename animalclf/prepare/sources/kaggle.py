"""An unpacked Kaggle competition folder: train_images/<class>/ and test_images/. Some archives nest each folder once
more in one of the same name."""

from __future__ import annotations

import csv
from dataclasses import replace

from animalclf.errors import UserError
from animalclf.prepare.sources.folders import read_folders
from animalclf.prepare.sources.listing import Listing
from animalclf.prepare.sources.roles import role_of
from animalclf.prepare.sources.source import SOURCES, Location, Source, SourceReader
from animalclf.prepare.sources.table_file import decode_text
from animalclf.utils import storage

TRAIN, TEST = "train_images", "test_images"
DEMO = ("demo.json", "answers.csv", "defects.json")
"""What `animalclf demo` writes beside them. The first marks its sets."""


@SOURCES.register("kaggle")
class Kaggle(SourceReader):
    priority = 30

    def matches(self, location: Location) -> bool:
        folders = set(location.listing.top_folders)
        others = folders - {TRAIN, TEST}
        return len(folders) > len(others) and not any(map(role_of, others))

    def read(self, location: Location) -> Source:
        data, sample = location.data, _sample_submission(location)
        test_root, test = _subfolder(location, TEST)
        if not location.labelled:
            if test.images.empty:
                raise UserError(f"{data}: has no {TEST}/ with images to predict")
            files = test.images.assign(label="", split="")
            skipped = _skipped(test.ignored, location, sample)
            return Source(test_root, files, "kaggle test images", skipped, sample_submission=sample)
        train_root, train = _subfolder(location, TRAIN)
        if train.images.empty:
            raise UserError(f"{data}: has no images in {TRAIN}/<class>/ to train on")
        train = replace(train, ignored=_skipped(train.ignored, location, sample))
        source = read_folders(train_root, f"{data}/{TRAIN}", train, splits=False, known=location.classes)
        return replace(source, kind="kaggle", test=None if test.images.empty else test_root, sample_submission=sample)


def _subfolder(location: Location, name: str) -> tuple[str, Listing]:
    """The URL of the folder `name`, and its images with the ignored files of the whole location."""
    images = location.listing.images
    prefix = f"{name}/{name}/" if images["path"].str.startswith(f"{name}/{name}/").any() else f"{name}/"
    rows = images[images["path"].str.startswith(prefix)]
    rows = rows.assign(path=rows["path"].str.slice(len(prefix))).reset_index(drop=True)
    return storage.join(location.url, prefix.rstrip("/")), Listing(rows, location.listing.ignored)


def _skipped(ignored: list[str], location: Location, sample: str | None) -> list[str]:
    """`ignored` without the files that are used or written for another purpose: the sample submission, the demo's."""
    used = DEMO if DEMO[0] in ignored else ()
    return [path for path in ignored if path not in used and storage.join(location.url, path) != sample]


def _sample_submission(location: Location) -> str | None:
    """The URL of the table with the columns id and category, if there is exactly one."""
    tables = [name for name in location.listing.ignored if name.lower().endswith((".csv", ".tsv"))]
    samples = [name for name in tables if _header(storage.join(location.url, name)) == ["id", "category"]]
    samples = [name for name in samples if "answer" not in name.lower()]
    return storage.join(location.url, samples[0]) if len(samples) == 1 else None


def _header(url: str) -> list[str]:
    try:
        text, separator = decode_text(storage.read_bytes(url), url, "id")
    except UnicodeDecodeError:
        return []
    return [name.strip().casefold() for name in next(csv.reader(text.splitlines()[:1], delimiter=separator), [])]
