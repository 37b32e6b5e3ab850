"""Slices: accuracy of the best run by size, shape, brightness, folder and format of the images, the lowest first."""

import pandas as pd

from animalclf.report.data import ReportData
from animalclf.report.section import Content, register
from animalclf.report.slices import MIN_IMAGES, image_table
from animalclf.report.slices import slices as worst_first

MAX_ROWS = 12


@register("slices", title="Slices", order=65, when=lambda data: bool(data.validated))
def slices(data: ReportData) -> Content:
    record, val = data.validated[0]
    table = data.predictions[0]
    images = image_table(table, val.classes)
    if data.prepared:
        manifest = data.prepared.manifest.drop_duplicates("path").set_index("path")
        if {"width", "height"} <= {*manifest.columns}:
            sizes = manifest.reindex(table["path"])[["width", "height"]].astype(float).reset_index(drop=True)
            images = images.assign(pixels=sizes["width"] * sizes["height"], aspect=sizes["width"] / sizes["height"])
        images = images.assign(brightness=pd.Series(data.survey.brightness))
    rows = worst_first(images)
    return Content(
        {
            "label": record.label,
            "several": len(data.finished) > 1,
            "rows": rows[:MAX_ROWS],
            "count": len(rows),
            "min_images": MIN_IMAGES,
        }
    )
