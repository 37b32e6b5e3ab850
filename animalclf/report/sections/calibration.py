"""Calibration: accuracy against confidence of the best run of each recipe and of the ensembles."""

from animalclf.metrics.calibration import BINS
from animalclf.report import plots
from animalclf.report.data import ReportData
from animalclf.report.section import Content, register


@register("calibration", title="Calibration", order=100, when=lambda data: bool(data.validated))
def calibration(data: ReportData) -> Content:
    models = [(record.label, val) for record, val in data.validated]
    ensembles = [(ensemble.name, ensemble.val) for ensemble in data.ensembles]
    return Content({"bins": BINS}, plots={"calibration": plots.draw(plots.calibration, [*models, *ensembles])})
