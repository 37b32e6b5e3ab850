"""A page of images for people to look at: sections of thumbnails with captions, one file that opens offline."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from animalclf.report.render import render


@dataclass(frozen=True)
class GalleryImage:
    """A thumbnail's caption: its `name` in bold, a `note`, and its path."""

    path: str
    name: str
    note: str


@dataclass(frozen=True)
class GallerySection:
    title: str
    text: str
    images: Sequence[GalleryImage]


def gallery_page(title: str, answer: str, sections: Sequence[GallerySection], thumbnails: Mapping[str, str]) -> bytes:
    """The HTML of a page. `answer`: the sentence below the title; `thumbnails`: data URIs by path."""
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    page = render(
        "gallery_page.html", title=title, answer=answer, sections=sections, thumbnails=thumbnails, written=written
    )
    return page.encode()
