"""Metrics of the probabilities: log loss, and how well confidence agrees with accuracy."""

from __future__ import annotations

import numpy as np

from animalclf.metrics.registry import METRICS, Metric, Predictions, prediction_metric
from animalclf.rows import CalibrationBin

BINS = 15  # of the calibration error, as in Guo et al. 2017
SMALLEST = 1e-12  # probability, so that the loss of a sure mistake is finite


def log_loss(predictions: Predictions) -> float:
    """Mean negative log-likelihood of the true class."""
    return float(-np.log(np.clip(predictions.likelihood.astype(np.float64), SMALLEST, 1)).mean())


# Of the metrics of probabilities this one is known after each epoch: the validation pass sums the cross-entropy.
METRICS.register("loss")(
    Metric("loss", title="loss", of_predictions=log_loss, higher_is_better=False, bounds=(0.0, np.inf), each_epoch=True)
)


@prediction_metric("ece", title="calibration error", heading="calib.\nerror", higher_is_better=False)
def calibration_error(predictions: Predictions) -> float:
    """Expected calibration error: the distance of mean confidence and accuracy in each bin, weighted by its images."""
    bins = calibration_bins(predictions)
    return sum(row.images * abs(row.confidence - row.accuracy) for row in bins) / max(len(predictions.labels), 1)


def calibration_bins(predictions: Predictions) -> list[CalibrationBin]:
    """The rows of a reliability diagram: the images of each of 15 equal ranges of confidence that has any."""
    number = np.minimum((predictions.confidence * BINS).astype(int), BINS - 1)
    correct = predictions.predicted == predictions.labels
    bins = []
    for chosen in (number == one for one in np.unique(number)):
        confidence, accuracy = float(predictions.confidence[chosen].mean()), float(correct[chosen].mean())
        bins.append(CalibrationBin(images=int(chosen.sum()), confidence=confidence, accuracy=accuracy))
    return bins
