"""Which pictures models get wrong, disagree on, or are likely labelled wrong. Plain pandas, from the probabilities that runs keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

SURE = 0.5  # mean probability of another class from which on a label is doubted


def confident_mistakes(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The `count` wrong pictures of a predictions table of which the model is surest: path, label, predicted, probability."""
    wrong = table[table["predicted"] != table["label"]]
    return wrong.sort_values("probability", ascending=False, kind="stable").head(count)[["path", "label", "predicted", "probability"]]


def likely_wrong_labels(tables: Sequence[pd.DataFrame], count: int) -> pd.DataFrame:
    """Pictures of which all models say, on the mean surer than SURE, that they show one other class: path, label, predicted, probability, and
    `given`, the mean probability of the label. The tables have the same pictures in the same order."""
    classes = [name for name in tables[0].columns if name.startswith("p_")]
    chances = np.mean([table[classes].to_numpy(np.float64) for table in tables], axis=0)
    said, label = tables[0]["predicted"], tables[0]["label"]
    agreed = np.all([table["predicted"] == said for table in tables], axis=0)
    numbers = {name[2:]: number for number, name in enumerate(classes)}
    rows = np.arange(len(label))
    found = pd.DataFrame(
        {
            "path": tables[0]["path"],
            "label": label,
            "predicted": said,
            "probability": chances[rows, said.map(numbers).to_numpy()],
            "given": chances[rows, label.map(numbers).to_numpy()],
        }
    )
    found = found[agreed & (said != label).to_numpy() & (found["probability"] > SURE).to_numpy()]
    return found.sort_values("given", kind="stable").head(count)


def disagreement(one: pd.DataFrame, other: pd.DataFrame, count: int) -> tuple[dict[str, int], pd.DataFrame]:
    """Of two models on the same pictures in the same order: how many both have right, one alone, neither; and pictures on which they differ
    (path, label, predicted, other), those of which both are surest first."""
    right, also = (one["predicted"] == one["label"]).to_numpy(), (other["predicted"] == other["label"]).to_numpy()
    counts = {"both": right & also, "first": right & ~also, "second": ~right & also, "neither": ~right & ~also}
    differ = (one["predicted"] != other["predicted"]).to_numpy()
    sure = np.minimum(one["probability"], other["probability"])
    pictures = one[["path", "label", "predicted"]].assign(other=other["predicted"], sure=sure)[differ]
    return {name: int(hits.sum()) for name, hits in counts.items()}, pictures.sort_values("sure", ascending=False, kind="stable").head(count)
