"""Reference results: the reference notebook's training histories, and those of the runs at the same epochs."""

from collections.abc import Sequence
from typing import NamedTuple

from animalclf.report.data import ReportData
from animalclf.report.reference_results import reference_rows
from animalclf.report.section import Content, register


class Line(NamedTuple):
    """A line of a table: train accuracy, validation accuracy, train loss and validation loss after an epoch, which is named once."""

    label: str
    values: Sequence[float | None]
    epoch: int | None = None


def _models(data: ReportData) -> list[str]:
    """The models of started runs that the reference notebook has, in the order of the runs."""
    started = dict.fromkeys(facts.config.model.name for facts in data.runs if facts.history)
    return [model for model in started if reference_rows(model)]


@register("reference_results", title="Reference results", order=40, when=lambda data: bool(_models(data)))
def reference_results(data: ReportData) -> Content:
    return Content({"tables": {model: _rows(model, data) for model in _models(data)}})


def _rows(model: str, data: ReportData) -> list[Line]:
    """For each epoch of the reference a row of its values, and one of each run of this model that reached the epoch."""
    rows = []
    for epoch, *values in reference_rows(model):
        rows.append(Line("reference notebook", values, epoch))
        for facts in data.runs:
            same = [row for row in facts.history if row.epoch == epoch and facts.config.model.name == model]
            for row in same:
                ours = (row.train_accuracy, row.val.get("accuracy"), row.train_loss, row.val.get("loss"))
                rows.append(Line(facts.config.name, ours))
    return rows
