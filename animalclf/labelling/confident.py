"""Which labels are probably wrong, from probabilities of models that have not seen the images. Plain NumPy.

The number of wrong labels is that of confident learning (Northcutt, Jiang, Chuang 2021, "Confident Learning: Estimating
Uncertainty in Dataset Labels", section 3.1). The order is that of the normalized margin (Northcutt et al. 2021, section
3.3; Wei et al. 2018). `python -m benchmarks.labels` compares them with others.
"""

from __future__ import annotations

import numpy as np

# Listed images for each wrong label of the estimate, which is low for small classes, and the least: a look costs less
# than a wrong label that is missed.
LIST_FACTOR, MIN_LISTED = 1.5, 20


def margins(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probability of each image's label minus the largest of another class, float64 (N,): below 0 where the
    prediction differs from the label; and that other class, int64 (N,).

    `probabilities` float (N, C); `labels` class numbers int64 (N,)."""
    rows = np.arange(len(labels))
    others = probabilities.astype(np.float64)
    given = others[rows, labels]
    others[rows, labels] = -1
    suggested = others.argmax(1)
    return given - others[rows, suggested], suggested


def wrong_labels(probabilities: np.ndarray, labels: np.ndarray) -> int:
    """The estimated number of wrong labels: images of which a class that is not the label is confident. A class is
    confident of an image if it has at least the mean probability that it has over the images with its label; of several
    the most probable one counts. Arguments as for `margins`."""
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.bincount(labels, probabilities[np.arange(len(labels)), labels], len(counts))
    thresholds = np.divide(sums, counts, out=np.full(len(counts), np.inf), where=counts > 0)
    confident = np.where(probabilities >= thresholds, probabilities, 0.0)
    return int(((confident.argmax(1) != labels) & (confident.max(1) > 0)).sum())


def likely_wrong(probabilities: np.ndarray, labels: np.ndarray, count: int = 0) -> np.ndarray:
    """The images whose labels are probably wrong, int64 (M,), the worst first: `count` of them, or, with 0, LIST_FACTOR
    times as many as `wrong_labels` and at least MIN_LISTED; never one whose label is predicted. Arguments as for
    `margins`."""
    margin, _ = margins(probabilities, labels)
    length = count or max(round(LIST_FACTOR * wrong_labels(probabilities, labels)), MIN_LISTED)
    return np.argsort(margin, kind="stable")[: min(length, int((margin < 0).sum()))]
