"""Top losses: the most confident misclassifications of the best run."""

import pandas as pd

from animalclf.report.data import ReportData
from animalclf.report.section import Content, register
from animalclf.report.thumbnails import GALLERY


@register("top_losses", title="Top losses", order=80, when=lambda data: bool(data.validated))
def top_losses(data: ReportData) -> Content:
    images = confident_mistakes(data.predictions[0], GALLERY)
    values = {
        "label": data.validated[0][0].label,
        "several": len(data.finished) > 1,
        "images": images.to_dict("records"),
    }
    return Content(values, images=images["path"].tolist())


def confident_mistakes(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The `count` misclassified images of a predictions table with the highest confidence: path, label, predicted,
    probability."""
    wrong = table[table["predicted"] != table["label"]]
    wrong = wrong.sort_values("probability", ascending=False, kind="stable").head(count)
    return wrong[["path", "label", "predicted", "probability"]]
