"""Penultimate features of the images of a prepared set or of a folder, with their probabilities, in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from animalclf.data.prepared_set import is_prepared, open_prepared
from animalclf.data.run_images import prepared_set_of
from animalclf.inference.labelled import predict_prepared
from animalclf.models.classifier import Classifier
from animalclf.predictions import OK
from animalclf.prepare import sources
from animalclf.runs import open_run
from animalclf.training import checkpoint
from animalclf.training.outputs import features_only
from animalclf.utils import storage
from animalclf.utils.console import show_line
from animalclf.utils.file_names import skipped_text


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """N readable images of one origin."""

    paths: list[str]
    """Relative to `root`."""
    features: np.ndarray
    """What the last dense layer, or the fitted heads, of the model take: float32 (N, F)."""
    probabilities: np.ndarray
    """Calibrated, float32 (N, C), in the order of `classes`."""
    classes: list[str]
    root: str
    """The folder of the images; of a prepared set its own folder."""
    labels: list[str] | None = None
    """None for unlabelled images."""
    groups: np.ndarray | None = None
    """Of near-duplicates, int64 (N,), if they are known."""
    unreadable: dict[str, str] | None = None
    """The reason by path, of a folder's images."""


def image_features(run: str, data: str | None = None, split: str = "train") -> ImageFeatures:
    """The features and probabilities of images by the best model of the run folder `run`: of `split` of its own
    prepared set, or of `data`: another prepared set's `split`, or all images of a folder, with Ray Data as in `predict`
    (labels are not used).

    Raises UserError as `evaluate` and `predict` do.
    """
    folder = open_run(run)
    model, info = checkpoint.load_model(folder.root)
    if data is None or is_prepared(data):
        prepared = prepared_set_of(folder) if data is None else open_prepared(data)
        predictions = predict_prepared(model, info.classes, info.config, prepared, split, summary=features_only)
        assert predictions.summaries is not None  # a split without images is refused
        return ImageFeatures(
            paths=predictions.paths,
            features=predictions.summaries,
            probabilities=predictions.probabilities,
            classes=info.classes,
            root=prepared.root,
            labels=predictions.labels,
            groups=predictions.groups,
        )
    return _of_folder(model, info, storage.absolute(data))


def _of_folder(model: Classifier, info: checkpoint.ModelInfo, data: str) -> ImageFeatures:
    from animalclf.inference.classify import Options, classify  # imports Ray

    source = sources.find(data, info.config.data, labelled=False)
    for note in filter(None, [*source.warnings, skipped_text(source.ignored)]):
        show_line(note)
    paths = source.files["path"].tolist()
    classified = classify(model, info.config, source.root, paths, Options(), features_only)
    readable = np.array([status == OK for status in classified.status])
    assert classified.summaries is not None  # a folder without images is refused
    return ImageFeatures(
        paths=[path for path, usable in zip(paths, readable, strict=True) if usable],
        features=classified.summaries[readable],
        probabilities=classified.probabilities[readable],
        classes=info.classes,
        root=source.root,
        unreadable={path: status for path, status in zip(paths, classified.status, strict=True) if status != OK},
    )
