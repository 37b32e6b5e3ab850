"""Leaderboard: each recipe and ensemble with its spread and interval, tests of the differences, and costs."""

from animalclf.report import plots
from animalclf.report.data import ReportData
from animalclf.report.section import Content, register

# Key of a leaderboard row -> heading, beside the balanced accuracy.
COLUMNS = {"accuracy": "accuracy", "macro_f1": "macro F1", "loss": "loss", "ece": "calibration error"}


@register("leaderboard", title="Leaderboard", order=10, when=lambda data: bool(data.rows) and len(data.runs) > 1)
def leaderboard(data: ReportData) -> Content:
    ensembles = any(row["kind"] == "ensemble" for row in data.rows)
    values = {"rows": data.rows, "columns": COLUMNS, "pairs": data.pairs, "ensembles": ensembles}
    return Content(values, plots={"leaderboard": plots.drawn(plots.leaderboard, data.rows)})
