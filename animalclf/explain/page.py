"""explain.html: one page that opens offline, with every image beside its heat map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import cv2

from animalclf.inference.explanation import Explanation
from animalclf.inference.model import Model
from animalclf.report.render import render
from animalclf.report.thumbnails import data_uri

MAX_SHOWN = 200  # images on the page: some megabytes
HEIGHT, QUALITY = 220, 80


class Entry(NamedTuple):
    """An image on the page."""

    path: str
    class_name: str
    probability: float
    predicted: str
    uri: str
    """The image beside its overlay, as a data URI."""
    is_blank: bool
    """Whether nothing speaks for the class."""

    @classmethod
    def of(cls, path: str, explanation: Explanation) -> Self:
        pair = explanation.side_by_side
        if len(pair) > HEIGHT:
            pair = cv2.resize(pair, (round(pair.shape[1] * HEIGHT / len(pair)), HEIGHT), interpolation=cv2.INTER_AREA)
        uri = data_uri(pair, QUALITY)
        return cls(
            path,
            explanation.class_name,
            explanation.probability,
            explanation.predicted,
            uri,
            not explanation.heat_map.any(),
        )


def page(model: Model, entries: Sequence[Entry], unreadable: Sequence[tuple[str, str]], count: int) -> str:
    """The HTML. `unreadable`: path and reason; `count`: of all images."""
    return render(
        "explain.html",
        title=f"Why: {model.config.name}",
        run=model.run,
        entries=entries,
        unreadable=unreadable,
        more=count - len(unreadable) - len(entries),
    )
