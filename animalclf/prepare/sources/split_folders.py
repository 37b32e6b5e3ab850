"""Split folders of class folders: root/train/<class>/**/image, root/val/<class>/**/image."""

from __future__ import annotations

from animalclf.prepare.sources.class_folders import refuse_single_class
from animalclf.prepare.sources.source import SOURCES, SPLITS, Location, Source, SourceReader


@SOURCES.register("split folders")
class SplitFolders(SourceReader):
    priority = 10

    def matches(self, location: Location) -> bool:
        top, path = location.listing.top_folders, location.listing.images["path"]
        return set(top) <= set(SPLITS) and top.nunique() > 1 and bool((path.str.count("/") >= 2).all())

    def read(self, location: Location) -> Source:
        images = location.listing.images
        parts = images["path"].str.split("/", n=2, expand=True)
        files = images.assign(label=parts[1], split=parts[0].map(SPLITS))
        source = Source(location.url, files, "split folders", location.listing.ignored)
        refuse_single_class(source, location.data)
        return source
