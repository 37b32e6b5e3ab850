"""A folder of images to predict."""

from __future__ import annotations

from animalclf.prepare.sources.source import SOURCES, Location, Source, SourceReader


@SOURCES.register("unlabelled")
class Unlabelled(SourceReader):
    priority = 20

    def matches(self, location: Location) -> bool:
        return not location.labelled

    def read(self, location: Location) -> Source:
        listing = location.listing
        return Source(location.url, listing.images.assign(label="", split=""), "unlabelled", listing.ignored)
