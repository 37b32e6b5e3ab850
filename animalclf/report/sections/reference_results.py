"""Reference results: the reference notebook's training histories, and those of the runs at the same epochs."""

from typing import Any

from animalclf.report.data import ReportData
from animalclf.report.reference_results import COLUMNS, reference_rows
from animalclf.report.section import Content, register


def _models(data: ReportData) -> list[str]:
    """The models of started runs that the reference notebook has, in the order of the runs."""
    started = dict.fromkeys(facts.config.model.name for facts in data.runs if facts.history)
    return [model for model in started if reference_rows(model)]


@register("reference_results", title="Reference results", order=40, when=lambda data: bool(_models(data)))
def reference_results(data: ReportData) -> Content:
    return Content({"tables": {model: _rows(model, data) for model in _models(data)}})


def _rows(model: str, data: ReportData) -> list[dict[str, Any]]:
    """For each epoch of the reference a row of its values, and one of each run of this model that reached the epoch."""
    rows: list[dict[str, Any]] = []
    for epoch, *values in reference_rows(model):
        rows.append({"epoch": epoch, "label": "reference notebook", "values": values})
        for facts in data.runs:
            same = [row for row in facts.history if row["epoch"] == epoch and facts.config.model.name == model]
            for row in same:
                rows.append({"epoch": None, "label": facts.config.name, "values": [row.get(name) for name in COLUMNS]})
    return rows
