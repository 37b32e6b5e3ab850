"""One image file to predict."""

from __future__ import annotations

import posixpath

import pandas as pd

from animalclf.prepare.sources.source import SOURCES, Location, Source, SourceReader
from animalclf.utils import storage


@SOURCES.register("single file")
class SingleFile(SourceReader):
    priority = 55  # a table that is named for prediction is read as a table

    def matches(self, location: Location) -> bool:
        return not location.labelled and storage.is_file(location.url)

    def read(self, location: Location) -> Source:
        folder, name = posixpath.split(location.url)
        files = pd.DataFrame({"path": [name], "bytes": [storage.size(location.url)], "stamp": [""]})
        return Source(folder, files.assign(label="", split=""), "single file", whole_folder=False)
