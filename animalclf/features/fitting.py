"""Fitting a head: settings and temperature chosen by cross-validation within the training images. Plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax

from animalclf.features.heads import ABSENT, HEADS, FittedHead, HeadKind, TrainingSet
from animalclf.features.temperature import fit_temperature


def fit_head(kind: str, training: TrainingSet, folds: np.ndarray) -> FittedHead:
    """The head `kind` with the settings and temperature of the lowest log loss over the inner `folds`, int64 (N,)."""
    head = HEADS.get(kind)
    logits, scored = out_of_fold_logits(head, training.compact, folds)
    labels, weights = training.labels[scored], training.weights[scored]
    temperatures = [fit_temperature(each[scored], labels, weights) for each in logits]
    losses = [
        mean_log_loss(log_softmax(each[scored] / temperature, axis=1), labels, weights)
        for each, temperature in zip(logits, temperatures, strict=True)
    ]
    best = int(np.argmin(losses))
    temperature = temperatures[best]
    return FittedHead(
        kind=kind,
        settings=head.candidates[best],
        temperature=temperature,
        tensors=head.fit(training, head.candidates[best]),
        log_probabilities=log_softmax(logits[best] / temperature, axis=1),
        log_loss=losses[best],
    )


def out_of_fold_logits(head: HeadKind, training: TrainingSet, folds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits float (candidates, N, C) of each image by the heads that are fitted on the other folds; and whether its
    class occurs in these, bool (N,)."""
    logits = np.full((len(head.candidates), len(training.labels), training.classes), ABSENT)
    scored = np.zeros(len(training.labels), bool)
    for fold in np.unique(folds):
        held_out = folds == fold
        present, labels = np.unique(training.labels[~held_out], return_inverse=True)
        scored[held_out] = np.isin(training.labels[held_out], present)
        if len(present) < 2:
            scored[held_out] = False
            continue
        weights = training.weights[~held_out]
        part = TrainingSet(training.features[~held_out], labels, weights / weights.mean(), len(present))
        candidates, rows = np.arange(len(logits)), np.flatnonzero(held_out)
        logits[np.ix_(candidates, rows, present)] = head.logits(part, training.features[held_out])
    return logits, scored


def mean_log_loss(log_probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean of -log p of the labels; 0 without images."""
    if not len(labels):
        return 0.0
    return float(-weights @ log_probabilities[np.arange(len(labels)), labels] / weights.sum())


def mean_of_heads(heads: Sequence[np.ndarray]) -> np.ndarray:
    """Log-probabilities float (N, C) of the mean of the heads' log-probabilities, each (N, C)."""
    return log_softmax(np.mean(heads, axis=0), axis=1)
