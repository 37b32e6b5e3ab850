"""Learning curves: loss and accuracy by epoch of every run."""

from animalclf.report import plots
from animalclf.report.data import ReportData
from animalclf.report.reference_results import reference_rows
from animalclf.report.section import Content, register


@register("learning_curves", title="Learning curves", order=30)
def learning_curves(data: ReportData) -> Content:
    histories = [(facts.config.name, facts.config.model.name, facts.history) for facts in data.runs if facts.history]
    if not histories:
        return Content()
    reference = {model: reference_rows(model) for _, model, _ in histories}
    return Content(plots={"learning_curves": plots.drawn(plots.learning_curves, histories, reference)})
