"""Slices: accuracy of the best run by size, shape, brightness, folder and format of the images, the lowest first."""

from animalclf.report.data import ReportData
from animalclf.report.section import Content, register
from animalclf.report.slices import MIN_IMAGES, image_table
from animalclf.report.slices import slices as worst_first

MAX_ROWS = 12


@register("slices", title="Slices", order=67, when=lambda data: bool(data.validated))
def slices(data: ReportData) -> Content:
    record, val = data.validated[0]
    table = data.predictions[0]
    images = image_table(table, val.classes)
    width, height = data.sizes.T
    images = images.assign(pixels=width * height, aspect=width / height, brightness=data.survey.brightness)
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
