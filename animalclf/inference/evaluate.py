"""A run's best model on labelled images: its own prepared set, another one, or any labelled folder or table."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data.augment import evaluation_view
from animalclf.data.loader import Batch
from animalclf.data.prepared_set import Prepared, is_prepared, open_prepared
from animalclf.data.run_images import prepared_set_of
from animalclf.data.sampler import sampling_plan
from animalclf.data.shards import read_shard
from animalclf.errors import UserError
from animalclf.inference import prior_shift
from animalclf.inference.probabilities import batch_probabilities, uses_bf16
from animalclf.inference.views import check_views
from animalclf.metrics import from_probabilities
from animalclf.metrics.text import metric_lines
from animalclf.models.classifier import Classifier
from animalclf.predictions import OK, predictions_table, unreadable
from animalclf.rows import EvaluationResult
from animalclf.runs import open_run
from animalclf.training import checkpoint
from animalclf.utils import storage
from animalclf.utils.progress import ProgressLine

BATCH = 64
MAX_CLASSES, MAX_PAIRS, MAX_UNREADABLE = 40, 10, 5  # shown
MAX_NAME = 100  # bytes of the data's name in the names of files


@dataclass
class LabelledPredictions:
    """Labelled images with their `probabilities` float32 (N, C), which mean nothing if the status is not OK."""

    paths: list[str]
    labels: list[str]
    probabilities: np.ndarray
    status: list[str]
    notes: list[str] = field(default_factory=list)
    groups: np.ndarray | None = None
    """Of duplicates, int64 (N,), if they are known."""


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
    out: str | None = None,
) -> EvaluationResult:
    """Evaluate the run folder's best model on `split` of its own prepared set, or on `data`: another prepared set's
    `split`, or all images of a labelled folder or table. `prior`: see prior_shift.parse_prior.
    `views`: see VIEWS. `transport`: see prior_shift.transport; its effect is in the notes of the result.

    Unreadable images are listed and not part of the metrics. Writes the result as evaluate-<name>.json and the
    probabilities as evaluate-<name>.parquet into `out` (default: the run's predictions folder).

    Raises UserError if the class lists differ, the prepared set changed since the training, or no image is readable.
    """
    started = time.perf_counter()
    folder = open_run(run)
    model, info = checkpoint.load_model(folder.root)
    classes, config = info.classes, info.config
    target_prior = prior_shift.parse_prior(prior, classes, info.prior)
    check_views(views, config.keeps_shape)
    if transport:
        prior_shift.check_transport(prior)
    folder_out = storage.absolute(out) if out else folder.url("predictions")
    storage.check_writable(folder_out)
    if data is None or is_prepared(data):
        prepared = prepared_set_of(folder) if data is None else open_prepared(data)
        origin, name = prepared.root, split if data is None else f"{_basename(data)}-{split}"
        own = config if data is None else _no_limit(config)
        predictions = predict_prepared(model, classes, own, prepared, split, views)
    else:
        origin, name, split = storage.absolute(data), _basename(data), ""
        predictions = predict_images(model, classes, config, data, views)
    readable = np.array([status == OK for status in predictions.status])
    if not readable.any():
        first = predictions.status[0]
        raise UserError(f"{origin}: none of the {len(readable):,} images can be read (the first: {first})")
    probabilities = predictions.probabilities
    corrected, priors = prior_shift.apply(probabilities[readable], info.prior, target_prior)
    labels = np.array([classes.index(label) for label in predictions.labels], np.int64)
    if transport:
        before, corrected = corrected, prior_shift.transport(corrected, priors)
        predictions.notes.append(_transport_note(before, corrected, labels[readable], classes))
    probabilities[readable], probabilities[~readable] = corrected, priors
    settings = [_slug(prior)] * (prior != "train") + [views] * (views != "none") + ["transport"] * transport
    name = "-".join(["evaluate", name, *settings])
    target = storage.join(folder_out, name)
    groups = None if predictions.groups is None else predictions.groups[readable]
    evaluation = from_probabilities(corrected, labels[readable], classes, groups)
    result = EvaluationResult(
        **{field.name: getattr(evaluation, field.name) for field in dataclasses.fields(evaluation)},
        run=folder.root,
        data=origin,
        split=split,
        prior=prior,
        views=views,
        transport=transport,
        class_priors=dict(zip(classes, priors.tolist(), strict=True)),
        epoch=info.epoch,
        images=len(readable),
        unreadable=unreadable(predictions.paths, predictions.status),
        notes=predictions.notes,
        predictions=f"{target}.parquet",
        seconds=time.perf_counter() - started,
    )
    table = predictions_table(
        predictions.paths, classes, probabilities, predictions.status, predictions.labels, predictions.groups
    )
    storage.write_table(result.predictions, table)
    storage.write_json(f"{target}.json", result.to_dict())
    return result


def predict_prepared(
    model: Classifier, classes: Sequence[str], config: Config, prepared: Prepared, split: str, views: str = "none"
) -> LabelledPredictions:
    """Predictions for the rows of `split` (within the limit that `config` trains with), in this process, without Ray.
    `views`: see `batch_probabilities`."""
    check_views(views, model.keep_shape)
    if list(classes) != prepared.classes:
        difference = _class_difference(classes, prepared.classes)
        raise UserError(
            f"{prepared.root}: other classes than the model's: {difference}; evaluate on a set of the same classes"
        )
    if prepared.stored_size < model.input_size:
        raise UserError(
            f"{prepared.root}: images are stored at {prepared.stored_size} px, the model reads {model.input_size} px; "
            "prepare them again"
        )
    if configuration.data_from_dict(prepared.info["config"]).resize != config.data.resize:
        raise UserError(
            f"{prepared.root}: images are stored with another data.resize than the model's {config.data.resize}; "
            f"prepare them again with --set data.resize={config.data.resize}"
        )
    rows = np.sort(sampling_plan(prepared, config).rows[split])
    if not len(rows):
        sizes = {name: len(prepared.rows(name)) for name in ("train", "val", "test")}
        known = ", ".join(f"{name} ({size:,})" for name, size in sizes.items() if size)
        raise UserError(f"{prepared.root}: no images in split {split!r}; splits with images: {known}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = _batches(prepared, rows, prepared.stored_size if model.keep_shape else model.input_size)
    with ProgressLine() as line:
        batches = _with_progress(batches, line, len(rows))
        index, probabilities = batch_probabilities(model.to(device), batches, device, uses_bf16(config, device), views)
    order = np.argsort(index)
    if not np.array_equal(index[order], rows):
        raise RuntimeError(f"{split}: the evaluated rows are not the split's rows: this is a bug, please report it")
    images, notes = prepared.manifest.iloc[rows], []
    if prepared.stored_size != config.data.stored_size:
        notes.append(
            f"stored at {prepared.stored_size} px, the training images at {config.data.stored_size} px: "
            "they are resized a little differently"
        )
    paths, labels = images["path"].tolist(), images["label"].tolist()
    groups = None if prepared.groups is None else prepared.groups[rows]
    return LabelledPredictions(paths, labels, probabilities[order], [OK] * len(rows), notes, groups)


def predict_images(
    model: Classifier, classes: Sequence[str], config: Config, data: str, views: str = "none"
) -> LabelledPredictions:
    """Predictions for all images of a labelled folder or table, with Ray Data."""
    from animalclf.inference.classify import Options, classify  # imports Ray
    from animalclf.prepare import sources

    source = sources.find(data, config.data, classes=classes)
    labels = source.files["label"].tolist()
    occurring = sorted(set(labels))
    if not set(occurring) <= set(classes):
        raise UserError(
            f"{data}: other classes than the model's: {_class_difference(classes, occurring)}; "
            "remove the unknown classes, or name them as the model does"
        )
    paths, notes = source.files["path"].tolist(), []
    if absent := sorted(set(classes) - set(occurring)):
        notes.append(
            f"no images of {', '.join(absent)}: balanced accuracy and macro F1 are over the {len(occurring)} classes "
            "that occur"
        )
    if (source.files["split"] != "").any():
        notes.append(f"its own split is not used: all {len(paths):,} images are evaluated")
    probabilities, status = classify(model, config, source.root, paths, Options(batch_size=BATCH, views=views))
    return LabelledPredictions(paths, labels, probabilities, status, notes)


def table(result: EvaluationResult) -> list[RenderableType]:
    """An evaluation for people: the metrics with their intervals, the classes, the most confused pairs, the notes."""
    name = result.data.rstrip("/").rpartition("/")[2]
    title = f"{result.rows:,} images of {name}{', ' + result.split if result.split else ''}"
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
            confusions.add_row(Text(pair.true), Text(pair.predicted), f"{pair.images:,}", f"{pair.fraction:.1%}")
        renderables.append(confusions)
    if result.unreadable:
        first = "; ".join(f"{image.path}: {image.reason}" for image in result.unreadable[:MAX_UNREADABLE])
        renderables.append(Text(f"unreadable and skipped: {len(result.unreadable):,} images ({first})", style="yellow"))
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


def _batches(prepared: Prepared, rows: np.ndarray, input_size: int) -> Iterator[Batch]:
    """Batches of the manifest rows `rows`, shard by shard: one shard is in memory at a time."""
    in_rows = np.zeros(len(prepared.manifest), bool)
    in_rows[rows] = True
    for path in prepared.shard_paths():
        images, index = read_shard(path, prepared.stored_size)
        positions = np.flatnonzero(in_rows[index])
        for start in range(0, len(positions), BATCH):
            batch = positions[start : start + BATCH]
            yield {
                "image": evaluation_view(images[batch], input_size),
                "label": prepared.labels[index[batch]],
                "index": index[batch],
            }


def _with_progress(batches: Iterator[Batch], line: ProgressLine, total: int) -> Iterator[Batch]:
    """`batches` unchanged; `line` shows how many of the `total` images are done."""
    done = 0
    line.update("evaluating", done, total)
    for batch in batches:
        yield batch
        done += len(batch["index"])
        line.update("evaluating", done, total)


def _transport_note(before: np.ndarray, after: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> str:
    """The effect of the transport on probabilities (N, C), in words."""
    old, new = (from_probabilities(each, labels, classes)["balanced_accuracy"] for each in (before, after))
    changed = int((before.argmax(1) != after.argmax(1)).sum())
    return (
        f"optimal transport to the class priors changes {changed:,} of {len(labels):,} predicted classes, and balanced "
        f"accuracy from {old:.3f} to {new:.3f}; use it only where the class counts are known"
    )


def _no_limit(config: Config) -> Config:
    return replace(config, data=replace(config.data, limit=0))


def _class_difference(model_classes: Sequence[str], classes: Sequence[str]) -> str:
    unknown = [name for name in classes if name not in model_classes]
    absent = [name for name in model_classes if name not in classes]
    parts = [f"unknown to the model: {', '.join(unknown)}"] if unknown else []
    parts += [f"known to the model only: {', '.join(absent)}"] if absent else []
    return "; ".join(parts) or "the same names in another order"


def _basename(url: str) -> str:
    return _slug(storage.absolute(url).rsplit("/", 1)[-1])


def _slug(text: str) -> str:
    """`text` as a part of a file name."""
    name = re.sub(r"[^\w.-]+", "_", text).strip("_.-") or "data"
    return name.encode()[:MAX_NAME].decode(errors="ignore")
