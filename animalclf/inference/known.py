"""The score of "none of these" of a finished run: from its file, or fitted now on its prepared set. Without Ray."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np

from animalclf.config import Config
from animalclf.data.prepared_set import Prepared
from animalclf.data.run_images import prepared_set_of
from animalclf.errors import UserError
from animalclf.features.known import KnownScorer, fit_distances, fit_scorer
from animalclf.features.known_file import read_scorer, write_scorer
from animalclf.inference.labelled import LabelledPredictions, predict_prepared
from animalclf.models.classifier import Classifier
from animalclf.runs import Run
from animalclf.training.checkpoint import ModelInfo
from animalclf.training.known_scores import MAX_IMAGES
from animalclf.training.outputs import features_only
from animalclf.utils.console import show_line


def known_scorer(run: Run, model: Classifier, info: ModelInfo) -> KnownScorer:
    """The scorer of a finished run. That of a run of an older version is fitted on its prepared set and stored. Raises
    UserError with the reason why there is none: an unfinished run, no validation images, folds without stored
    distances, a prepared set that is gone or changed."""
    if not run.finished():
        raise UserError(f"{run.root}: the training has not finished; continue it with --resume")
    scorer = read_scorer(run)
    if scorer:
        return scorer
    if run.result().val is None:
        raise UserError(f"{run.root}: it has no validation images to select the threshold on (data.val)")
    if info.config.train.folds:
        raise UserError(f"{run.root}: its folds' models, which judge unseen images, are not stored; train again")
    prepared = prepared_set_of(run)
    show_line(f"{run.root}: no known.npz; computing it from the features of {prepared.root}")
    scorer = _fit(model, info, prepared)
    with contextlib.suppress(UserError, OSError):  # a run folder that cannot be written
        write_scorer(run, scorer)
    return scorer


def scorer_or_reason(run: Run, model: Classifier, info: ModelInfo) -> tuple[KnownScorer | None, str]:
    """The scorer of a run and an empty text, or None and why there is none."""
    try:
        return known_scorer(run, model, info), ""
    except UserError as error:
        return None, str(error)


def _fit(model: Classifier, info: ModelInfo, prepared: Prepared) -> KnownScorer:
    config = _limited(info.config, prepared)

    def of(split: str) -> tuple[LabelledPredictions, np.ndarray]:
        predictions = predict_prepared(model, info.classes, config, prepared, split, summary=features_only)
        assert predictions.summaries is not None  # a split without images is refused
        return predictions, predictions.summaries

    device = next(model.parameters()).device
    (train, train_features), (val, val_features) = of("train"), of("val")
    model.to(device)
    distances = fit_distances(train_features, train.class_numbers(info.classes))
    return fit_scorer(distances, distances(val_features), val.probabilities)


def _limited(config: Config, prepared: Prepared) -> Config:
    """`config` with at most about MAX_IMAGES training images."""
    used = len(prepared.manifest) if not config.data.limit else config.data.limit
    limit = min(used, round(MAX_IMAGES * len(prepared.manifest) / max(len(prepared.rows("train")), 1)))
    return replace(config, data=replace(config.data, limit=limit))
