"""Likely label errors: images for which all models agree, with confidence, on another class than the label."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from animalclf.report.data import ReportData
from animalclf.report.section import Content, register
from animalclf.report.thumbnails import GALLERY

MIN_CONFIDENCE = 0.5  # mean probability of the other class


@register("label_errors", title="Likely label errors", order=90, when=lambda data: bool(data.validated))
def label_errors(data: ReportData) -> Content:
    images = likely_label_errors(data.predictions, GALLERY)
    values = {"several": len(data.validated) > 1, "min_confidence": MIN_CONFIDENCE, "images": images.to_dict("records")}
    return Content(values, images=images["path"].tolist())


def likely_label_errors(tables: Sequence[pd.DataFrame], count: int) -> pd.DataFrame:
    """The `count` images for which all models predict the same class, not the label, with a mean probability above
    MIN_CONFIDENCE: path, label, predicted, and mean probabilities of the predicted class (`probability`) and of the
    label (`label_probability`), sorted by the last. The tables have the same images in the same order."""
    columns = [name for name in tables[0].columns if name.startswith("p_")]
    probabilities = np.mean([table[columns].to_numpy(np.float64) for table in tables], axis=0)
    predicted, label = tables[0]["predicted"], tables[0]["label"]
    agreed = np.all([table["predicted"] == predicted for table in tables], axis=0)
    numbers = {name[2:]: number for number, name in enumerate(columns)}
    rows = np.arange(len(label))
    images = pd.DataFrame(
        {
            "path": tables[0]["path"],
            "label": label,
            "predicted": predicted,
            "probability": probabilities[rows, predicted.map(numbers).to_numpy()],
            "label_probability": probabilities[rows, label.map(numbers).to_numpy()],
        }
    )
    images = images[agreed & (predicted != label).to_numpy() & (images["probability"] > MIN_CONFIDENCE).to_numpy()]
    return images.sort_values("label_probability", kind="stable").head(count)
