"""Features of a run's validation images, for the map: those that the training stored, or computed for some images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from animalclf.data.run_images import prepared_set_of
from animalclf.errors import UserError
from animalclf.inference.model import Model
from animalclf.models.classifier import features_and_logits
from animalclf.report.thumbnails import stored_images
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.training.checks import trains_on_features
from animalclf.training.feature_cache import stored_features

MAX_IMAGES = 20_000
MAX_COMPUTED = 500  # images whose features are not stored: a minute or two on two cores


def map_features(run: Run, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray] | None:
    """The rows int64 (N,) of `table`, predictions of labelled images, that the map shows, and their features float32
    (N, F), what the last dense layer or the fitted heads take. If not all are shown, half of them at most are mistakes.
    None for a run whose model or images are gone."""
    if not run.has_checkpoint("best"):
        return None
    try:
        return _stored(run, table) or _computed(run, table)
    except UserError:
        return None


def _stored(run: Run, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray] | None:
    config = run.config()
    if not trains_on_features(config):
        return None
    prepared = prepared_set_of(run)
    classifier, _ = checkpoint.load_model(run.root)
    classifier.channels_last = config.train.channels_last
    features = stored_features(prepared, config, classifier)
    if not features:
        return None
    numbers = pd.Series(np.arange(len(prepared.manifest)), index=prepared.manifest["path"])
    position = features.position(len(prepared.manifest))[numbers.reindex(table["path"]).to_numpy(np.int64)]
    rows = chosen_rows(table, MAX_IMAGES)
    rows = rows[position[rows] >= 0]
    with torch.inference_mode():
        values, _ = features_and_logits(classifier.head, torch.from_numpy(features.values[position[rows]]))
    return rows, values.numpy()


def _computed(run: Run, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray] | None:
    rows = chosen_rows(table, MAX_COMPUTED)
    paths = table["path"].iloc[rows].tolist()
    images = stored_images(prepared_set_of(run), paths)
    is_stored = np.array([path in images for path in paths], bool)
    if not is_stored.any():
        return None
    return rows[is_stored], Model(run.root).features([images[path] for path in paths if path in images])


def chosen_rows(table: pd.DataFrame, count: int) -> np.ndarray:
    """At most `count` rows of a table of predictions, ascending: drawn by a fixed seed, mistakes first for half."""
    order = np.random.default_rng(0).permutation(len(table))
    if len(table) <= count:
        return np.sort(order)
    is_mistake = (table["predicted"] != table["label"]).to_numpy()[order]
    mistakes = order[is_mistake][: count // 2]
    return np.sort(np.concatenate([mistakes, order[~np.isin(order, mistakes)][: count - len(mistakes)]]))
