"""Per-class metrics of the best run of each recipe, the class with the lowest F1 first."""

from typing import Any

from animalclf.report.data import ReportData
from animalclf.report.section import Content, register
from animalclf.rows import Evaluation


@register("per_class_metrics", title="Per-class metrics", order=60, when=lambda data: bool(data.validated))
def per_class_metrics(data: ReportData) -> Content:
    return Content({"tables": [{"label": facts.label, "rows": _rows(val)} for facts, val in data.validated]})


def _rows(val: Evaluation) -> list[dict[str, Any]]:
    metrics = ("support", "recall", "precision", "f1")  # None where a class has no image or no prediction
    columns = [getattr(val.per_class, name) for name in metrics]
    rows = [dict(zip(("name", *metrics), row, strict=True)) for row in zip(val.classes, *columns, strict=True)]
    return sorted(rows, key=lambda row: (row["f1"] is None, row["f1"] or 0))
