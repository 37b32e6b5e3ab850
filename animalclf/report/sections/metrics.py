"""Metrics: the validation metrics of one run with their intervals, and its cost. Several runs have the leaderboard."""

from animalclf.metrics.text import metric_lines
from animalclf.report.data import ReportData
from animalclf.report.section import Content, register


def _applies(data: ReportData) -> bool:
    return bool(data.validated) and (len(data.runs) == 1 or not data.rows)


@register("metrics", title="Metrics", order=10, when=_applies)
def metrics(data: ReportData) -> Content:
    record, val = data.validated[0]
    values = {"label": record.label, "val": val, "lines": metric_lines(val), "rows": data.rows}
    result = record.result
    values |= {"measured": result.measured if result else "", "optimistic": bool(result and result.selected)}
    return Content(values)
