"""Reference results: published training histories of the recipes, and those of the runs at the same epochs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from animalclf.report.data import ReportData
from animalclf.report.reference_results import ReferenceResults
from animalclf.report.section import Content, register


class HistoryLine(NamedTuple):
    """A line of a table. `values`: train accuracy, validation accuracy, train loss and validation loss after `epoch`,
    which only the reference's line names."""

    label: str
    values: Sequence[float | None]
    epoch: int | None = None


class Reference(NamedTuple):
    """The section's content for one recipe."""

    recipe: str
    validation: str
    history: Sequence[HistoryLine]
    final: Mapping[str, str]


@register("reference_results", title="Reference results", order=40, when=lambda data: bool(data.references))
def reference_results(data: ReportData) -> Content:
    references = [
        Reference(recipe, results.validation, _history(recipe, results, data), results.final)
        for recipe, results in data.references.items()
    ]
    return Content({"references": references})


def _history(recipe: str, results: ReferenceResults, data: ReportData) -> list[HistoryLine]:
    """For each epoch of the reference its values, and those of each run of this recipe that reached the epoch."""
    histories = [("reference notebook", results.epochs)]
    histories += [(record.label, record.history) for record in data.runs if record.config.name == recipe]
    lines = []
    for epoch in (row.epoch for row in results.epochs):
        for number, (label, history) in enumerate(histories):
            for row in (row for row in history if row.epoch == epoch):
                values = (row.train_accuracy, row.val.get("accuracy"), row.train_loss, row.val.get("loss"))
                lines.append(HistoryLine(label, values, None if number else epoch))
    return lines
