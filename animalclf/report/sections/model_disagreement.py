"""Model disagreement: validation images that the two best recipes classify differently."""

import numpy as np
import pandas as pd

from animalclf.report.data import ReportData
from animalclf.report.section import Content, register
from animalclf.report.thumbnails import GALLERY


@register("model_disagreement", title="Model disagreement", order=70, when=lambda data: len(data.validated) > 1)
def model_disagreement(data: ReportData) -> Content:
    counts, images = disagreement(data.predictions[0], data.predictions[1], GALLERY)
    names = [facts.config.name for facts, _ in data.validated[:2]]
    values = {"counts": counts, "names": names, "images": images.to_dict("records")}
    return Content(values, images=images["path"].tolist())


def disagreement(first: pd.DataFrame, second: pd.DataFrame, count: int) -> tuple[dict[str, int], pd.DataFrame]:
    """How many images two models both classify correctly ("both"), only one of them ("first", "second") or neither;
    and the `count` images (path, label, predicted, other) with different predictions, sorted by the lower confidence
    of the two. Both tables have the same images in the same order."""
    correct, also = (
        (first["predicted"] == first["label"]).to_numpy(),
        (second["predicted"] == second["label"]).to_numpy(),
    )
    masks = {"both": correct & also, "first": correct & ~also, "second": ~correct & also, "neither": ~correct & ~also}
    differ = (first["predicted"] != second["predicted"]).to_numpy()
    sure = np.minimum(first["probability"], second["probability"])
    images = first[["path", "label", "predicted"]].assign(other=second["predicted"], sure=sure)[differ]
    images = images.sort_values("sure", ascending=False, kind="stable").head(count)
    return {name: int(mask.sum()) for name, mask in masks.items()}, images
