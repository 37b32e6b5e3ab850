"""Learning curves: loss and accuracy by epoch of every run."""

from animalclf.report import plots
from animalclf.report.data import ReportData
from animalclf.report.section import Content, register


@register("learning_curves", title="Learning curves", order=30)
def learning_curves(data: ReportData) -> Content:
    histories = [(record.config.name, record.history) for record in data.runs if record.history]
    if not histories:
        return Content()
    reference = {recipe: results.epochs for recipe, results in data.references.items()}
    return Content(plots={"learning_curves": plots.draw(plots.learning_curves, histories, reference)})
