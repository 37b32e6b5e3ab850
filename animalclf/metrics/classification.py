"""What a set of predictions is worth: accuracy, balanced accuracy, F1, loss and calibration with their intervals. Plain numpy.

Every figure is a plain finite number (or None for the recall of a class that does not occur), so that it is strict JSON.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 15  # of the calibration error, as in Guo et al. 2017
RESAMPLES = 1000


def from_confusion(confusion: np.ndarray) -> dict[str, Any]:
    """Figures of a confusion matrix, int64 (C, C), rows = true class.

    `balanced_accuracy` is the mean recall, `macro_f1` the mean F1, over the classes that occur; `per_class` has lists in class order.
    Raises ValueError for an empty matrix.
    """
    support, predicted, hits = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    total, occurs = int(support.sum()), support > 0
    if not total:
        raise ValueError("no rows to evaluate")
    recall = hits / np.maximum(support, 1)
    precision = hits / np.maximum(predicted, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    return {
        "rows": total,
        "accuracy": float(hits.sum() / total),
        "balanced_accuracy": float(recall[occurs].mean()),
        "macro_f1": float(f1[occurs].mean()),
        "per_class": {
            "precision": [float(value) if n else None for value, n in zip(precision, predicted, strict=True)],
            "recall": [float(value) if n else None for value, n in zip(recall, support, strict=True)],
            "f1": [float(value) if n else None for value, n in zip(f1, support, strict=True)],
            "support": [int(n) for n in support],
        },
    }


def from_probabilities(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """The full evaluation of class probabilities float (N, C) against labels int64 (N,).

    Beside `from_confusion`: `loss` (mean negative log-likelihood), `ece` (expected calibration error) with its `calibration` bins,
    `top2_accuracy`, `top3_accuracy`, the `confusion` matrix, and `intervals`: 95 % ranges [low, high] of accuracy, balanced_accuracy, macro_f1.
    """
    count, rows = len(classes), np.arange(len(labels))
    predicted = probabilities.argmax(1)
    confusion = np.bincount(labels * count + predicted, minlength=count * count).reshape(count, count)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :3] == labels[:, None]  # stable: of equals the first class, as argmax has it
    bins, ece = calibration(probabilities.max(1), predicted == labels)
    found = from_confusion(confusion)
    balanced, f1 = _bootstrap(confusion)
    return {
        **found,
        "loss": float(-np.log(np.clip(probabilities[rows, labels].astype(np.float64), 1e-12, 1)).mean()),
        "top2_accuracy": float(best[:, :2].any(1).mean()),
        "top3_accuracy": float(best.any(1).mean()),
        "ece": ece,
        "calibration": bins,
        "classes": list(classes),
        "confusion": confusion.tolist(),
        "intervals": {"accuracy": wilson(int(confusion.trace()), len(labels)), "balanced_accuracy": balanced, "macro_f1": f1},
    }


def calibration(confidence: np.ndarray, correct: np.ndarray) -> tuple[list[dict[str, float]], float]:
    """Rows of a reliability plot (pictures, mean confidence, accuracy of each of 15 equal bins that is not empty) and the expected calibration
    error: the mean distance of the two, weighted by pictures."""
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = []
    for number in np.unique(place):
        mine = place == number
        bins.append({"pictures": int(mine.sum()), "confidence": float(confidence[mine].mean()), "accuracy": float(correct[mine].mean())})
    error = sum(row["pictures"] * abs(row["confidence"] - row["accuracy"]) for row in bins) / max(len(confidence), 1)
    return bins, float(error)


def wilson(hits: int, total: int) -> list[float]:
    """The 95 % interval of a share by Wilson's score (1927), which is right for small sets and near 0 and 1."""
    z = 1.959964
    share = hits / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return [max(0.0, centre - half), min(1.0, centre + half)]


def _bootstrap(confusion: np.ndarray) -> tuple[list[float], list[float]]:
    """95 % intervals of balanced accuracy and macro F1: each class's pictures are drawn anew, with its number kept (a stratified bootstrap).
    An interval has no width where every class is all right or all wrong: a resample of such rows is the rows."""
    generator = np.random.default_rng(0)
    occurs = np.flatnonzero(confusion.sum(1))
    support, hits = confusion.sum(1), np.zeros((RESAMPLES, len(confusion)), np.int64)
    predicted = np.zeros_like(hits)
    for number in occurs:  # class by class: all resampled matrices at once would take gigabytes for a thousand classes
        drawn = generator.multinomial(support[number], confusion[number] / support[number], RESAMPLES)
        hits[:, number] = drawn[:, number]
        predicted += drawn
    balanced = (hits[:, occurs] / support[occurs]).mean(1)
    f1 = (2 * hits / np.maximum(support + predicted, 1))[:, occurs].mean(1)
    return [float(v) for v in np.quantile(balanced, [0.025, 0.975])], [float(v) for v in np.quantile(f1, [0.025, 0.975])]
