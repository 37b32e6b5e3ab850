"""Confusion matrix of the best run of each recipe: a table, or a plot for many classes."""

import re

from animalclf.report import plots
from animalclf.report.data import ReportData
from animalclf.report.section import Content, register

MAX_TABLE_CLASSES = 40  # with more classes a matrix is shown as a plot only


@register("confusion_matrix", title="Confusion matrix", order=50, when=lambda data: bool(data.validated))
def confusion_matrix(data: ReportData) -> Content:
    matrices, figures = [], {}
    for number, (facts, val) in enumerate(data.validated, start=1):
        plot = f"confusion-{number}-{_slug(facts.label)}"
        figures[plot] = plots.drawn(plots.confusion, facts.label, val)
        as_table = len(val.classes) <= MAX_TABLE_CLASSES
        rows = zip(val.classes, val.confusion, strict=True) if as_table else ()
        matrices.append({"label": facts.label, "classes": val.classes, "rows": list(rows), "plot": plot})
    return Content({"matrices": matrices}, plots=figures)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:40]
