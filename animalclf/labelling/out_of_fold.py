"""Probabilities of a run's own labelled images, each by a model that has not seen it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from animalclf.config import Config
from animalclf.data.run_images import prepared_set_of
from animalclf.data.sampler import sampling_plan
from animalclf.errors import UserError
from animalclf.features.folds import deal_folds
from animalclf.features.heads import HEADS, TrainingSet
from animalclf.labelling.features import frozen_features
from animalclf.predictions import class_probabilities
from animalclf.runs import Run
from animalclf.training.checks import trains_on_features
from animalclf.training.fitted_heads import image_weights
from animalclf.utils.console import show_line
from animalclf.utils.text import count_text

FOLDS = 5
HEAD, HEAD_OF_MANY = "logistic", "lda"  # of a run without fitted heads; for more images than its heads fit


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """N labelled images of a run."""

    paths: list[str]
    labels: np.ndarray
    """Class numbers int64 (N,), positions in `classes`."""
    probabilities: np.ndarray
    """float (N, C)."""
    groups: np.ndarray
    """Of near-duplicates, int64 (N,)."""
    classes: list[str]
    origin: str
    """Where the probabilities are from, for people."""


def out_of_fold(run: Run) -> OutOfFold:
    """The out-of-fold probabilities that a finished run with `train.folds` holds, or, of a run whose base is frozen,
    those of heads that are fitted now on its features, in FOLDS folds.

    Raises UserError for an unfinished run, for a prepared set that is gone, and for a run without folds whose base
    trains, with the command that helps.
    """
    result, config = run.result(), run.config()
    if config.train.folds:
        return _of_folds(run, result.classes, config.train.folds)
    if not trains_on_features(config):
        data, recipe, out = run.environment().prepared or "IMAGES", run.url("config.yaml"), f"{run.root}-folds"
        raise UserError(
            f"{run.root}: its model has seen its training images, and its base is not frozen, so that heads could be "
            f"fitted now; train it in folds: animalclf train --data {data} --recipe {recipe} --folds {FOLDS} "
            f"--out {out}, then: animalclf labels {out}"
        )
    return _of_frozen_base(run, config)


def _of_folds(run: Run, classes: Sequence[str], folds: int) -> OutOfFold:
    table = run.predictions("val", classes)
    numbers = {name: number for number, name in enumerate(classes)}
    return OutOfFold(
        paths=table["path"].tolist(),
        labels=table["label"].map(numbers).to_numpy(np.int64),
        probabilities=class_probabilities(table, classes),
        groups=table["group"].to_numpy(np.int64) if "group" in table else np.arange(len(table)),
        classes=list(classes),
        origin=f"the run's {folds} folds",
    )


def _of_frozen_base(run: Run, config: Config) -> OutOfFold:
    prepared = prepared_set_of(run)
    rows = np.sort(np.concatenate(list(sampling_plan(prepared, config).rows.values())))
    features = frozen_features(run, config, prepared, rows)
    labels, groups = prepared.labels[rows], rows if prepared.groups is None else prepared.groups[rows]
    present, numbers = np.unique(labels, return_inverse=True)
    training = TrainingSet(features, numbers, image_weights(numbers, config.train.balance), len(present))
    kinds = [kind for kind in config.train.heads or [HEAD] if HEADS.get(kind).fits(len(rows), len(present))]
    show_line(f"fitting heads in {FOLDS} folds of {count_text(len(rows), 'image')}")
    probabilities = np.zeros((len(rows), len(prepared.classes)))
    probabilities[:, present] = head_probabilities(
        training, deal_folds(numbers, groups, FOLDS, 0), kinds or [HEAD_OF_MANY]
    )
    return OutOfFold(
        paths=prepared.manifest["path"].iloc[rows].tolist(),
        labels=labels,
        probabilities=probabilities,
        groups=groups,
        classes=prepared.classes,
        origin=f"heads fitted in {FOLDS} folds on the features of the frozen base",
    )


def head_probabilities(training: TrainingSet, folds: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """Probabilities float (N, C) of each image by heads that are fitted without its fold (`folds` int64 (N,)): the mean
    of the `kinds`, whose settings and temperature are those of the lowest out-of-fold log loss."""
    from animalclf.features.fitting import fit_head, mean_of_heads  # imports SciPy: a third of a second

    with threadpool_limits(torch.get_num_threads()):
        heads = [fit_head(kind, training, folds).log_probabilities for kind in kinds]
    return np.exp(mean_of_heads(heads))
