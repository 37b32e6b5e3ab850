"""A folder of images to predict."""

from __future__ import annotations

from animalclf.errors import UserError
from animalclf.prepare.sources.layout import Layout, read_layout
from animalclf.prepare.sources.source import SOURCES, Location, Source, SourceReader
from animalclf.utils import storage


@SOURCES.register("unlabelled")
class Unlabelled(SourceReader):
    priority = 20

    def matches(self, location: Location) -> bool:
        return not location.labelled

    def read(self, location: Location) -> Source:
        """All images; of folders of splits with a test folder without classes, those of the test folder."""
        listing, images = location.listing, location.listing.images.assign(label="", split="")
        layout = _split_layout(location)
        if layout is None:
            return Source(location.url, images, "unlabelled", listing.ignored)
        if layout.unlabelled is None:
            folders = ", ".join(f"{name}/" for name in sorted(listing.top_folders.unique()))
            note = f"the folder has splits ({folders}): all images are classified; name one folder to classify it alone"
            return Source(location.url, images, "unlabelled", listing.ignored, warnings=[note])
        prefix = f"{layout.unlabelled}/"
        rows = images[images["path"].str.startswith(prefix)]
        rows = rows.assign(path=rows["path"].str.slice(len(prefix))).reset_index(drop=True)
        note = (
            f"only the images of {prefix} are classified, the folder without class folders; name another to classify it"
        )
        root = storage.join(location.url, layout.unlabelled)
        return Source(root, rows, "unlabelled", listing.ignored, warnings=[note])


def _split_layout(location: Location) -> Layout | None:
    """The layout of folders of splits, None for other folders."""
    try:
        layout = read_layout(location.listing.images, location.data, splits=location.config.splits != "none")
    except UserError:  # images to predict need no layout
        return None
    return layout if layout.kind == "split folders" else None
