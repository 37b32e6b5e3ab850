"""Learning curves: loss and accuracy by epoch of every run of more than one epoch."""

from animalclf.report import plots
from animalclf.report.data import ReportData
from animalclf.report.section import Content, register


def _applies(data: ReportData) -> bool:
    """A single epoch is no curve; of runs without an epoch the section says so."""
    epochs = [len(record.history) for record in data.runs]
    return max(epochs) != 1


@register("learning_curves", title="Learning curves", order=30, when=_applies)
def learning_curves(data: ReportData) -> Content:
    histories = [(record.config.name, record.history) for record in data.runs if len(record.history) > 1]
    single = [record.label for record in data.runs if len(record.history) == 1]
    if not histories:
        return Content({"single": single})
    reference = {recipe: results.epochs for recipe, results in data.references.items()}
    return Content({"single": single}, {"learning_curves": plots.draw(plots.learning_curves, histories, reference)})
