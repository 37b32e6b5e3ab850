"""Map of the images: a projection of the features that the best run has of the validation images, with mistakes."""

import numpy as np
from markupsafe import Markup

from animalclf.report.data import ReportData
from animalclf.report.image_map import map_json
from animalclf.report.plots import COLOURS
from animalclf.report.projection import MAX_EXACT, project
from animalclf.report.section import Content, register

SCRIPT = "image_map.js"


@register("image_map", title="Map of the images", order=85, when=lambda data: data.image_map is not None)
def image_map(data: ReportData) -> Content:
    assert data.image_map
    rows, features = data.image_map
    record, val = data.validated[0]
    table = data.predictions[0].iloc[rows].reset_index(drop=True)
    content = map_json(
        table, val.classes, project(features), data.sizes[rows, 0] / data.sizes[rows, 1], data.survey.part(rows)
    )
    values = {
        "label": record.label,
        "several": len(data.finished) > 1,
        "json": Markup(content),
        "colours": " ".join(COLOURS),
        "shown": len(rows),
        "images": len(data.predictions[0]),
        "exact": min(MAX_EXACT, len(rows)),
        "mistakes": int((table["predicted"] != table["label"]).sum()),
        "features": np.shape(features)[1],
        "classes": len(val.classes),
        "folds": bool(record.result and record.result.folds),
    }
    return Content(values, script=SCRIPT)
