"""Per-class metrics of the best run of each recipe, the class with the lowest F1 first."""

from typing import NamedTuple

from animalclf.report.data import ReportData
from animalclf.report.section import Content, register
from animalclf.rows import Evaluation


class ClassMetrics(NamedTuple):
    """A line of a table. None if a class has no image or no prediction."""

    name: str
    support: int
    recall: float | None
    precision: float | None
    f1: float | None


@register("per_class_metrics", title="Per-class metrics", order=60, when=lambda data: bool(data.validated))
def per_class_metrics(data: ReportData) -> Content:
    return Content({"tables": [{"label": record.label, "rows": _rows(val)} for record, val in data.validated]})


def _rows(val: Evaluation) -> list[ClassMetrics]:
    per_class = val.per_class
    columns = zip(val.classes, per_class.support, per_class.recall, per_class.precision, per_class.f1, strict=True)
    return sorted((ClassMetrics(*column) for column in columns), key=lambda row: (row.f1 is None, row.f1 or 0))
