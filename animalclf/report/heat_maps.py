"""Heat maps of images of a run's prepared set, for the report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from animalclf.data.resize import shrink
from animalclf.data.run_images import prepared_set_of
from animalclf.errors import UserError
from animalclf.inference.model import Model
from animalclf.report.thumbnails import QUALITY, SIDE, data_uri, stored_images
from animalclf.runs import Run

SECONDS = 30.0  # after which no further map is computed


class HeatMaps(NamedTuple):
    """Overlays as data URIs (JPEG, at most 112 px) by path, and why there are none."""

    uris: dict[str, str]
    missing: str


def heat_maps(run: Run, class_names: Mapping[str, str]) -> HeatMaps:
    """The heat maps of images, by manifest path, for the class of each. A run without model or images has none."""
    if not run.has_checkpoint("best"):
        return HeatMaps({}, "the run folder has no model")
    try:
        images = stored_images(prepared_set_of(run), class_names)
        model, started, uris = Model(run.root), time.monotonic(), {}
        for path in class_names:
            if path in images and time.monotonic() - started < SECONDS:
                (explanation,) = model.explain(images[path], class_names[path])
                uris[path] = data_uri(shrink(explanation.overlay, SIDE), QUALITY)
    except UserError as error:
        return HeatMaps({}, str(error))
    return HeatMaps(uris, "")
