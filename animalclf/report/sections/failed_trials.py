"""Failed trials of a comparison, with their reasons."""

from animalclf.report.data import ReportData
from animalclf.report.section import Content, register


@register("failed_trials", title="Failed trials", order=20, when=lambda data: bool(data.failed))
def failed_trials(data: ReportData) -> Content:
    return Content({"trials": data.failed})
