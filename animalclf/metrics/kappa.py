"""Cohen's kappa."""

from __future__ import annotations

import numpy as np

from animalclf.metrics.registry import Counts, count_metric


@count_metric("kappa", title="Cohen's kappa", heading="kappa", bounds=(-1.0, 1.0))
def kappa(counts: Counts) -> np.ndarray:
    """Agreement of labels and predictions beyond chance (Cohen 1960): 1 is perfect, 0 is the agreement by chance of
    labels and predictions of the same frequencies. 0 for a single class, where chance always agrees."""
    total = counts.support.sum()
    observed = counts.hits.sum(-1) / total
    expected = (counts.support * counts.predicted).sum(-1) / total**2
    return np.divide(observed - expected, 1 - expected, out=np.zeros_like(observed), where=expected < 1)
