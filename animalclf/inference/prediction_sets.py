"""Prediction sets (`--sets`) of a run's model, calibrated on the validation images of the run. Without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

import numpy as np
import pandas as pd

from animalclf.errors import UserError
from animalclf.features.conformal import group_weights, max_coverage, prediction_sets, set_threshold
from animalclf.inference.prior_shift import adjust
from animalclf.inference.validation import duplicate_groups
from animalclf.predictions import class_probabilities
from animalclf.rows import EvaluationResult, SetSizes
from animalclf.runs import Run
from animalclf.utils import storage


@dataclass(frozen=True, eq=False)
class Calibration:
    """Validation images (with folds: all images, out of fold): `probabilities` float32 (N, C) under the class priors of
    the training, `labels` int64 (N,), `weights` float (N,)."""

    probabilities: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    coverage: float

    def sets(self, probabilities: np.ndarray, train_prior: Sequence[float], priors: np.ndarray) -> np.ndarray:
        """Whether each class is in each image's set, bool (N, C), of probabilities (N, C) that are corrected from
        `train_prior` for `priors`, float (C,). An image of the calibration counts as its class does under these (label
        shift: Podkopaev, Ramdas 2021)."""
        train = np.asarray(train_prior, np.float64)
        corrected = self.probabilities if np.array_equal(priors, train) else adjust(self.probabilities, train, priors)
        threshold = set_threshold(corrected, self.labels, self.coverage, *self._weights(train, priors))
        return prediction_sets(probabilities, threshold)

    def problem(self, train_prior: Sequence[float], priors: np.ndarray) -> str:
        """Why sets under `priors`, as in `sets`, have all classes; empty if they need not."""
        highest = max_coverage(*self._weights(np.asarray(train_prior, np.float64), priors))
        if self.coverage <= highest + 1e-9:
            return ""
        return (
            f"sets: under these class priors a coverage of {self.coverage:g} needs more than the {len(self.labels):,} "
            f"validation images of the run; use at most {floor(1000 * highest) / 1000:g}"
        )

    def _weights(self, train: np.ndarray, priors: np.ndarray) -> tuple[np.ndarray, float]:
        """The weights float (N,) of the calibration images under `priors`, and that of a new image."""
        ratio = np.divide(priors, train, out=np.zeros(len(train)), where=train > 0)
        return self.weights * ratio[self.labels], float(ratio.max())


def open_calibration(run: Run, classes: Sequence[str], coverage: float, views: str = "none") -> Calibration:
    """The calibration images of a finished run. Raises UserError for a coverage that is none, an unfinished run, a run
    without validation images or with too few for the coverage, and several `views` of which there are no validation
    probabilities by this model yet."""
    if not 0 < coverage < 1:
        raise UserError(f"sets: {coverage:g} is not a coverage between 0 and 1, such as 0.9")
    if run.result().val is None:
        raise UserError(f"{run.root}: sets need validation images, and this run has none; train with data.val above 0")
    table = run.predictions("val", classes) if views == "none" else _validation_of_views(run, classes, views)
    labels = np.array([list(classes).index(label) for label in table["label"]], np.int64)
    weights = group_weights(duplicate_groups(run, table), len(labels))
    if coverage > (highest := max_coverage(weights)) + 1e-9:
        raise UserError(
            f"{run.root}: sets: a coverage of {coverage:g} needs more than its {len(labels):,} validation images (near-"
            f"duplicates count once); use at most {floor(1000 * highest) / 1000:g}"
        )
    return Calibration(class_probabilities(table, classes), labels, weights, coverage)


def _validation_of_views(run: Run, classes: Sequence[str], views: str) -> pd.DataFrame:
    """The table that `evaluate` wrote of the run's own validation images with `views`. Raises UserError if there is
    none of the run's present model."""
    if run.config().train.folds:
        raise UserError(f"{run.root}: sets of a run with folds are of the plain images; use them without views={views}")
    name, own = f"evaluate-val-{views}", run.predictions("val")
    if all(storage.exists(run.url("predictions", f"{name}.{suffix}")) for suffix in ("json", "parquet")):
        url, table = run.url("predictions", f"{name}.json"), run.predictions(name, classes)
        result = EvaluationResult.from_dict(storage.read_json(url), url)
        written = (result.split, result.prior, result.views, result.epoch, result.predictions.rpartition(".")[2])
        same_model = written == ("val", "train", views, run.result().best_epoch, "parquet")
        if same_model and all(table[column].tolist() == own[column].tolist() for column in ("path", "label")):
            return table
    raise UserError(
        f"{run.root}: sets with views={views} need the validation probabilities of these views by this model; first "
        f"evaluate the run with views={views}"
    )


def set_sizes(sets: Sequence[Sequence[str]]) -> SetSizes:
    """Of the sets of at least one image."""
    sizes = np.array([len(names) for names in sets])
    return SetSizes(mean=float(sizes.mean()), one=float((sizes == 1).mean()), empty=float((sizes == 0).mean()))
