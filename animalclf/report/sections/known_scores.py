"""Known scores: the histogram of the score of "none of these" of the best run, with its threshold."""

from animalclf.features.known import KEPT
from animalclf.features.known_file import read_scorer
from animalclf.report import plots
from animalclf.report.data import ReportData, RunRecord
from animalclf.report.section import Content, register
from animalclf.utils import storage


def _scored_runs(data: ReportData) -> list[RunRecord]:
    return [record for record in data.best if storage.exists(record.run.known_scores)]


@register("known_scores", title="None of these", order=105, when=lambda data: bool(_scored_runs(data)))
def known_scores(data: ReportData) -> Content:
    record = _scored_runs(data)[0]
    scorer = read_scorer(record.run)
    assert scorer
    values = {
        "label": record.label,
        "images": len(scorer.validation),
        "folds": bool(record.result and record.result.folds),
        "kept": KEPT,
        "below": int((scorer.validation < 0).sum()),
    }
    return Content(values, plots={"known_scores": plots.draw(plots.known_scores, scorer.validation)})
