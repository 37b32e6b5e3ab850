"""Metrics of class probabilities, their intervals, and tests of differences. Plain NumPy and SciPy.

Each metric is a function in a module here, registered in METRICS (see registry.py). Modules are imported automatically;
the metrics of the two modules below come first in every table.
"""

from animalclf.metrics import classification as classification  # isort: skip
from animalclf.metrics import calibration as calibration  # isort: skip
from animalclf.metrics.evaluation import from_confusion, from_probabilities, main_metrics
from animalclf.metrics.registry import METRICS, PRIMARY, Counts, Metric, Predictions, epoch_metrics, headline_metrics

__all__ = [
    "METRICS",
    "PRIMARY",
    "Counts",
    "Metric",
    "Predictions",
    "epoch_metrics",
    "from_confusion",
    "from_probabilities",
    "headline_metrics",
    "main_metrics",
]
