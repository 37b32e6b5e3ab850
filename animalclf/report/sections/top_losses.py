"""Top losses: the validation images with the highest loss of the best run, without those that are right and certain,
and what speaks for the predicted class."""

import numpy as np
import pandas as pd

from animalclf.metrics.calibration import MIN_PROBABILITY
from animalclf.report.data import ReportData
from animalclf.report.heat_maps import heat_maps
from animalclf.report.section import Content, register
from animalclf.report.thumbnails import GALLERY

CERTAIN = 0.9  # probability of the true class


@register("top_losses", title="Top losses", order=80, when=lambda data: bool(data.validated))
def top_losses(data: ReportData) -> Content:
    images = highest_losses(data.predictions[0], GALLERY)
    maps = heat_maps(data.validated[0][0].run, dict(zip(images["path"], images["predicted"], strict=True)))
    values = {
        "label": data.validated[0][0].label,
        "several": len(data.finished) > 1,
        "certain": CERTAIN,
        "images": images.to_dict("records"),
        "heat_maps": maps.uris,
        "missing": maps.missing,
    }
    return Content(values, images=images["path"].tolist())


def highest_losses(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The `count` images of a predictions table with the highest loss, the log of the true class's probability times
    -1, below CERTAIN: path, label, predicted, probability (of the predicted class), loss."""
    columns = [name for name in table.columns if name.startswith("p_")]
    numbers = {name.removeprefix("p_"): number for number, name in enumerate(columns)}
    of_label = table["label"].map(numbers).to_numpy(np.int64)
    probability = table[columns].to_numpy()[np.arange(len(table)), of_label].astype(np.float64)
    losses = table[["path", "label", "predicted", "probability"]].assign(
        loss=-np.log(np.clip(probability, MIN_PROBABILITY, 1))
    )
    return losses[probability < CERTAIN].sort_values("loss", ascending=False, kind="stable").head(count)
