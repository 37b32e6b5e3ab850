"""Metrics of the probabilities: log loss, and how well confidence agrees with accuracy."""

from __future__ import annotations

import numpy as np

from animalclf.metrics.registry import Metric, Predictions, prediction_metric, register_metric
from animalclf.rows import CalibrationBin

BINS = 15  # as in Guo et al. 2017
MIN_PROBABILITY = 1e-12  # bounds the loss of a confident mistake


def log_loss(predictions: Predictions) -> float:
    """Mean negative log-likelihood of the true class."""
    return float(-np.log(np.clip(predictions.likelihood.astype(np.float64), MIN_PROBABILITY, 1)).mean())


# Known after each epoch, unlike other metrics of probabilities: the validation pass sums the cross-entropy.
register_metric(
    Metric("loss", title="loss", of_predictions=log_loss, higher_is_better=False, bounds=(0.0, np.inf), each_epoch=True)
)


@prediction_metric("ece", title="calibration error", heading="calib.\nerror", higher_is_better=False)
def calibration_error(predictions: Predictions) -> float:
    """Expected calibration error: the difference of mean confidence and accuracy in each bin, weighted by its
    images."""
    bins = calibration_bins(predictions)
    return sum(row.images * abs(row.confidence - row.accuracy) for row in bins) / max(len(predictions.labels), 1)


def calibration_bins(predictions: Predictions) -> list[CalibrationBin]:
    """The rows of a reliability diagram: 15 ranges of confidence of equal width, without empty ones."""
    bin_of = np.clip((predictions.confidence * BINS).astype(np.int64), 0, BINS - 1)
    images = np.bincount(bin_of, minlength=BINS)
    confidence = np.bincount(bin_of, predictions.confidence, BINS)
    correct = np.bincount(bin_of, predictions.predicted == predictions.labels, BINS)
    return [
        CalibrationBin(
            images=int(images[number]),
            confidence=float(confidence[number] / images[number]),
            accuracy=float(correct[number] / images[number]),
        )
        for number in np.flatnonzero(images)
    ]
