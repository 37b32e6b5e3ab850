"""A folder of images to be predicted."""

from __future__ import annotations

from animalclf.prepare.sources.source import SOURCES, Location, Source, SourceReader


@SOURCES.register("unlabelled")
class Unlabelled(SourceReader):
    priority = 20

    def matches(self, location: Location) -> bool:
        return not location.labelled

    def read(self, location: Location) -> Source:
        return Source(
            location.url, location.listing.images.assign(label="", split=""), "unlabelled", location.listing.ignored
        )
