"""A run's best model on labelled images: its own prepared set, another one, or any labelled folder or table."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from animalclf.config import Config
from animalclf.data.prepared_set import Prepared, is_prepared, open_prepared
from animalclf.data.run_images import prepared_set_of
from animalclf.errors import UserError
from animalclf.features.temperature import cross_calibrate
from animalclf.inference import prior_shift
from animalclf.inference.extra_columns import DEFAULT_TABLE, TableOptions, add_top_k
from animalclf.inference.labelled import LabelledPredictions, predict_images, predict_prepared
from animalclf.inference.probabilities import uses_bf16
from animalclf.inference.views import check_views
from animalclf.metrics import from_probabilities
from animalclf.metrics.text import metric_lines
from animalclf.models.classifier import Classifier
from animalclf.predictions import OK, class_probabilities, predictions_table, unreadable, write_predictions
from animalclf.rows import EvaluationResult
from animalclf.runs import Run, open_run
from animalclf.training import checkpoint
from animalclf.training.checkpoint import ModelInfo
from animalclf.training.final_eval import validation_folds
from animalclf.utils import storage
from animalclf.utils.text import count_text, percent
from animalclf.utils.writable import check_writable

MAX_CLASSES, MAX_PAIRS, MAX_UNREADABLE = 40, 10, 5  # shown
MAX_NAME = 90  # bytes of the data's name in the names of files


class ConfusedPair(NamedTuple):
    """Images of the class `true` that are predicted as `predicted`, and their fraction of the true class."""

    true: str
    predicted: str
    images: int
    fraction: float


def evaluate(
    run: str,
    *,
    data: str | None = None,
    split: str = "val",
    prior: str = "train",
    views: str = "none",
    transport: bool = False,
    columns: TableOptions = DEFAULT_TABLE,
    out: str | None = None,
) -> EvaluationResult:
    """Evaluate the run folder's best model on `split` of its own prepared set, or on `data`: another prepared set's
    `split`, or all images of a labelled folder or table. `prior`: see prior_shift.parse_prior.
    `views`: see VIEWS. `transport`: see prior_shift.transport; its effect is in the notes of the result.

    Unreadable images are listed and not part of the metrics. Writes the result as evaluate-<name>.json and the
    probabilities (with top_k and format of `columns`) as evaluate-<name>.parquet into `out` (default: the run's
    predictions folder). The name is the split, or data-<name of the data>.

    Raises UserError if the class lists differ, the prepared set changed since the training, or no image is readable.
    """
    started = time.perf_counter()
    folder = open_run(run)
    model, info = checkpoint.load_model(folder.root)
    target_prior = prior_shift.parse_prior(prior, info.classes, info.prior)
    check_views(views)
    columns.check()
    if transport:
        prior_shift.check_transport(prior)
    folder_out = storage.absolute(out) if out else folder.url("predictions")
    check_writable(folder_out)
    origin, name, split, predictions = _predict(folder, model, info, data, split, views)
    readable = np.array([status == OK for status in predictions.status])
    if not readable.any():
        first = predictions.status[0]
        raise UserError(f"{origin}: none of the {count_text(len(readable), 'image')} can be read (the first: {first})")
    probabilities = predictions.probabilities
    corrected, priors = prior_shift.apply(probabilities[readable], info.prior, target_prior)
    labels = predictions.class_numbers(info.classes)[readable]
    if transport:
        before, corrected = corrected, prior_shift.transport(corrected, priors)
        predictions.notes.append(_transport_note(before, corrected, labels, info.classes))
    probabilities[readable], probabilities[~readable] = corrected, priors
    groups = None if predictions.groups is None else predictions.groups[readable]
    evaluation = from_probabilities(corrected, labels, info.classes, groups)
    settings = [_slug(prior)] * (prior != "train") + [views] * (views != "none") + ["transport"] * transport
    name = "-".join(["evaluate", name, *settings])
    target = storage.join(folder_out, name)
    result = EvaluationResult(
        **{field.name: getattr(evaluation, field.name) for field in dataclasses.fields(evaluation)},
        run=folder.root,
        data=origin,
        source=predictions.source,
        split=split,
        prior=prior,
        views=None if views == "none" else views,
        transport=transport or None,
        class_priors=dict(zip(info.classes, priors.tolist(), strict=True)),
        epoch=info.epoch,
        images=len(readable),
        unreadable=unreadable(predictions.paths, predictions.status),
        notes=predictions.notes,
        predictions=f"{target}.{columns.format}",
        seconds=time.perf_counter() - started,
    )
    written = add_top_k(_table_of(predictions, info.classes), probabilities, info.classes, columns.top_k)
    write_predictions(result.predictions, written)
    storage.write_json(f"{target}.json", result.to_dict())
    return result


def _predict(
    folder: Run, model: Classifier, info: ModelInfo, data: str | None, split: str, views: str
) -> tuple[str, str, str, LabelledPredictions]:
    """The URL and the name of the labelled images, their split (empty for a folder or table), and their predictions."""
    if data is not None and not is_prepared(data):
        predictions = predict_images(model, info.classes, info.config, data, views)
        return storage.absolute(data), _data_name(data), "", predictions
    prepared = prepared_set_of(folder) if data is None else open_prepared(data)
    name = split if data is None else f"{_data_name(data)}-{split}"
    own = data is None or _trained_on(folder, info, prepared)
    if own and split == "val":
        predictions = _predict_own_validation(folder, model, info, prepared, views)
    else:
        config = info.config if own else _no_limit(info.config)
        predictions = predict_prepared(model, info.classes, config, prepared, split, views)
    if own and (split == "test" or (split == "val" and not info.config.train.folds)):
        predictions.notes += _precision_note(folder, model, info)
    predictions.source = prepared.info.get("source")
    return prepared.root, name, split, predictions


def _predict_own_validation(
    folder: Run, model: Classifier, info: ModelInfo, prepared: Prepared, views: str
) -> LabelledPredictions:
    """Predictions for the images that the result measures: cross-fitted as after the training, or out of fold."""
    if info.config.train.folds:
        if views != "none":
            raise UserError(f"--views {views}: the out-of-fold probabilities of {folder.root} are of the plain images")
        return _out_of_fold(folder, info)
    model.temperature = 1.0
    predictions = predict_prepared(model, info.classes, info.config, prepared, "val", views)
    if info.temperature != 1:
        labels = predictions.class_numbers(info.classes)
        folds = validation_folds(labels, predictions.groups)
        assert predictions.view_probabilities is not None
        calibrated = cross_calibrate(predictions.view_probabilities, labels, folds)
        predictions.probabilities = calibrated.mean(1).astype(np.float32)
    if folder.finished() and folder.result().selected:
        predictions.notes.append("the epoch was selected on these images: their metrics are optimistic")
    return predictions


def _precision_note(folder: Run, model: Classifier, info: ModelInfo) -> list[str]:
    """A note on the images that the training measured too, if it did so in another precision than `model`."""
    trained_in = folder.result().precision if folder.finished() else ""
    if trained_in != "bf16" or uses_bf16(info.config, next(model.parameters()).device):
        return []
    return ["computed in fp32, as predict does on a CPU; the training measured in bf16, so its metrics differ a little"]


def _out_of_fold(folder: Run, info: ModelInfo) -> LabelledPredictions:
    """The stored probabilities of a cross-validation: the model itself was trained on these images."""
    table = folder.predictions("val", info.classes)
    return LabelledPredictions(
        paths=table["path"].tolist(),
        labels=table["label"].tolist(),
        probabilities=class_probabilities(table, info.classes).copy(),
        status=table["status"].tolist(),
        notes=[f"out of fold: each image by a model without its fold ({info.config.train.folds} folds)"],
        groups=table["group"].to_numpy(np.int64) if "group" in table else None,
    )


def _table_of(predictions: LabelledPredictions, classes: Sequence[str]) -> pd.DataFrame:
    return predictions_table(
        predictions.paths,
        classes,
        predictions.probabilities,
        predictions.status,
        predictions.labels,
        predictions.groups,
    )


def table(result: EvaluationResult) -> list[RenderableType]:
    """An evaluation for people: the metrics with their intervals, the classes, the most confused pairs, the notes."""
    name = (result.source or result.data).rstrip("/").rpartition("/")[2]
    title = f"{count_text(result.rows, 'image')} of {name}{', ' + result.split if result.split else ''}"
    headline = Table(title=Text(title), title_justify="left", show_header=False)
    headline.add_column(style="bold")
    headline.add_column()
    for line in metric_lines(result):
        headline.add_row(line.title, line.text)
    if result.prior != "train":
        headline.add_row("corrected for the priors", Text(result.prior))
    renderables: list[RenderableType] = [headline, _classes_table(result)]
    pairs = confused_pairs(result.confusion, result.classes)
    if pairs:
        confusions = Table(title="most confused", title_justify="left")
        confusions.add_column("true class")
        confusions.add_column("predicted class")
        confusions.add_column("images", justify="right")
        confusions.add_column("of the true class", justify="right")
        for pair in pairs[:MAX_PAIRS]:
            confusions.add_row(Text(pair.true), Text(pair.predicted), f"{pair.images:,}", percent(pair.fraction))
        renderables.append(confusions)
    if result.unreadable:
        first = "; ".join(f"{image.path}: {image.reason}" for image in result.unreadable[:MAX_UNREADABLE])
        renderables.append(
            Text(f"unreadable and skipped: {count_text(len(result.unreadable), 'image')} ({first})", style="yellow")
        )
    return renderables + [Text(f"note: {note}", style="yellow") for note in result.notes]


def confused_pairs(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> list[ConfusedPair]:
    """The pairs of classes with errors, sorted by the number of images, the highest first. `confusion`: counts (C, C),
    rows = true class."""
    counts = np.asarray(confusion)
    support = counts.sum(1)
    pairs = [(int(true), int(predicted)) for true, predicted in np.argwhere(counts) if true != predicted]
    pairs.sort(key=lambda pair: (-counts[pair], pair))
    return [
        ConfusedPair(classes[pair[0]], classes[pair[1]], int(counts[pair]), float(counts[pair] / support[pair[0]]))
        for pair in pairs
    ]


def _classes_table(result: EvaluationResult) -> Table:
    per_class, classes = result.per_class, result.classes
    order, title = list(range(len(classes))), "classes"
    if len(classes) > MAX_CLASSES:
        occurring = [number for number in order if per_class.support[number]]
        order = sorted(occurring, key=lambda number: per_class.recall[number] or 0.0)[:MAX_CLASSES]
        title = f"the {len(order)} classes of {len(classes)} with the lowest recall"
    classes_table = Table(title=title, title_justify="left")
    classes_table.add_column("class")
    for name in ("images", "recall", "precision", "F1"):
        classes_table.add_column(name, justify="right")
    for number in order:
        values = [metric[number] for metric in (per_class.recall, per_class.precision, per_class.f1)]
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        classes_table.add_row(Text(classes[number]), f"{per_class.support[number]:,}", *cells)
    return classes_table


def _trained_on(folder: Run, info: ModelInfo, prepared: Prepared) -> bool:
    """Whether the model was trained on the training and validation images of a prepared set."""
    return bool(info.config.train.folds) and prepared.fingerprint == folder.environment().data_fingerprint


def _transport_note(before: np.ndarray, after: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> str:
    """The effect of the transport on probabilities (N, C), in words."""
    old, new = (from_probabilities(each, labels, classes)["balanced_accuracy"] for each in (before, after))
    changed = int((before.argmax(1) != after.argmax(1)).sum())
    return (
        f"optimal transport to the class priors changes {changed:,} of {len(labels):,} predicted classes, and balanced "
        f"accuracy from {old:.3f} to {new:.3f}; use it only where the class counts are known"
    )


def _no_limit(config: Config) -> Config:
    """`config` without its choice of images."""
    return replace(config, data=replace(config.data, limit=0), train=replace(config.train, folds=0))


def _data_name(url: str) -> str:
    """The name of other data than the run's own, which no split of the run has."""
    return f"data-{_slug(storage.absolute(url).rsplit('/', 1)[-1])}"


def _slug(text: str) -> str:
    """`text` as a part of a file name."""
    name = re.sub(r"[^\w.-]+", "_", text).strip("_.-") or "data"
    return name.encode()[:MAX_NAME].decode(errors="ignore")
