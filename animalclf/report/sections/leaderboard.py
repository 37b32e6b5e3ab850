"""Leaderboard: each recipe and ensemble with its spread and interval, tests of the differences, and costs."""

from animalclf.metrics import METRICS, PRIMARY, headline_metrics
from animalclf.report import plots
from animalclf.report.data import ReportData
from animalclf.report.section import Content, register


@register("leaderboard", title="Leaderboard", order=10, when=lambda data: bool(data.rows) and len(data.runs) > 1)
def leaderboard(data: ReportData) -> Content:
    ensembles = any(row.kind == "ensemble" for row in data.rows)
    others = [metric for metric in headline_metrics() if metric.key != PRIMARY]
    values = {
        "rows": data.rows,
        "primary": METRICS.get(PRIMARY),
        "others": others,
        "pairs": data.pairs,
        "ensembles": ensembles,
    }
    return Content(values, plots={"leaderboard": plots.draw(plots.leaderboard, data.rows)})
