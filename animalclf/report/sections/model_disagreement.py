"""Model disagreement: validation images that the two best recipes classify differently."""

import numpy as np
import pandas as pd

from animalclf.report.data import ReportData
from animalclf.report.section import Content, register
from animalclf.report.thumbnails import GALLERY


@register("model_disagreement", title="Model disagreement", order=70, when=lambda data: len(data.validated) > 1)
def model_disagreement(data: ReportData) -> Content:
    counts, images = disagreement(data.predictions[0], data.predictions[1], GALLERY)
    names = [record.config.name for record, _ in data.validated[:2]]
    values = {"counts": counts, "names": names, "images": images.to_dict("records")}
    return Content(values, images=images["path"].tolist())


def disagreement(first: pd.DataFrame, second: pd.DataFrame, count: int) -> tuple[dict[str, int], pd.DataFrame]:
    """How many images both models classify correctly ("both"), only one of them ("first", "second") or neither;
    and the `count` images (path, label, predicted, second) with different predictions, sorted by the lower confidence
    of the two. Both tables have the same images in the same order."""
    first_correct = (first["predicted"] == first["label"]).to_numpy()
    second_correct = (second["predicted"] == second["label"]).to_numpy()
    masks = {
        "both": first_correct & second_correct,
        "first": first_correct & ~second_correct,
        "second": ~first_correct & second_correct,
        "neither": ~first_correct & ~second_correct,
    }
    differ = (first["predicted"] != second["predicted"]).to_numpy()
    confidence = np.minimum(first["probability"], second["probability"])
    images = first[["path", "label", "predicted"]].assign(second=second["predicted"], confidence=confidence)[differ]
    images = images.sort_values("confidence", ascending=False, kind="stable").head(count)
    return {name: int(mask.sum()) for name, mask in masks.items()}, images
