"""The table of predictions: class probabilities of images, from training, `evaluate`, `predict` and `ensemble`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from animalclf.rows import Unreadable
from animalclf.utils import storage

OK = "ok"  # the status of a readable image
FORMATS = ("parquet", "csv", "jsonl")
SET = "set"  # the column of prediction sets, each a list of class names
SEPARATOR = "|"  # between these in a CSV file


def predictions_table(
    paths: Sequence[str],
    classes: Sequence[str],
    probabilities: np.ndarray,
    status: Sequence[str],
    labels: Sequence[str] | None = None,
    groups: np.ndarray | None = None,
) -> pd.DataFrame:
    """One row per image, in the order of `paths`: id (file name), path, label if it is known, predicted, probability
    (of the predicted class), p_<class> float32 of every class, status (OK, or why the image is unreadable), group (of
    duplicates) if it is known.

    `probabilities`: float (N, C). Of equal probabilities the first class, in class order, is predicted.
    """
    best = probabilities.argmax(1)
    table = pd.DataFrame({"id": [path.rsplit("/", 1)[-1] for path in paths], "path": list(paths)}, dtype=str)
    if labels is not None:
        table["label"] = list(labels)
    table["predicted"] = np.array(classes, object)[best]
    table["probability"] = probabilities[np.arange(len(best)), best].astype(np.float32)
    columns = pd.DataFrame(probabilities.astype(np.float32), columns=probability_columns(classes))
    table = pd.concat([table, columns], axis=1).assign(status=list(status))
    return table if groups is None else table.assign(group=groups)


def probability_columns(classes: Sequence[str]) -> list[str]:
    """The names of the columns of class probabilities."""
    return [f"p_{name}" for name in classes]


def class_probabilities(table: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """The probabilities, float32 (N, C), of a table of predictions, in the order of `classes`."""
    return table[probability_columns(classes)].to_numpy(np.float32)


def predicted_counts(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, int]:
    """The number of images predicted as each class."""
    return {name: int((table["predicted"] == name).sum()) for name in classes}


def unreadable(paths: Sequence[str], status: Sequence[str]) -> list[Unreadable]:
    """The images whose status is not OK."""
    return [Unreadable(path=path, reason=reason) for path, reason in zip(paths, status, strict=True) if reason != OK]


def write_predictions(url: str, table: pd.DataFrame) -> None:
    """Write a table of predictions in the format of its suffix: .parquet, .csv, or .jsonl (an object for each
    image). In CSV the classes of a set have | between them."""
    if url.endswith(".parquet"):
        storage.write_table(url, table)
    elif url.endswith(".csv"):
        if SET in table:
            table = table.assign(**{SET: table[SET].map(SEPARATOR.join)})
        storage.write_bytes(url, table.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())
    else:
        text = table.to_json(orient="records", lines=True, force_ascii=False, double_precision=15)
        storage.write_bytes(url, text.encode())
