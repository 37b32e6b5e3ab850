"""A run's best model on labelled pictures: its own prepared set, another one, or any labelled folder or table."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from animalclf.config import Config
from animalclf.data.augment import evaluation_view
from animalclf.data.loader import Batch
from animalclf.data.prepared_set import Prepared, is_prepared, open_prepared, read_shard
from animalclf.data.sampler import sampling_plan
from animalclf.errors import UserError
from animalclf.inference import prior_shift
from animalclf.inference.probabilities import batch_probabilities, uses_bf16
from animalclf.metrics import from_probabilities
from animalclf.metrics.text import metric_lines
from animalclf.models.classifier import Classifier
from animalclf.predictions import OK, predictions_table, unreadable
from animalclf.rows import EvaluationResult
from animalclf.runs import Run, open_run
from animalclf.training import checkpoint
from animalclf.utils import storage

BATCH = 64
MAX_CLASSES, MAX_PAIRS = 40, 10  # rows of a table


@dataclass
class Classified:
    """Labelled pictures and what the model makes of them: `probabilities` float32 (N, C); a status other than "ok" makes its row meaningless."""

    paths: list[str]
    labels: list[str]
    probabilities: np.ndarray
    status: list[str]
    notes: list[str] = field(default_factory=list)


def evaluate(
    run: str, *, data: str | None = None, split: str = "val", prior: str = "train", out: str | None = None
) -> EvaluationResult:
    """Evaluate the run folder's best model on `split` of its own prepared set, or on `data`: another prepared set's `split`, or all
    images of a labelled folder or table. `prior`: see prior_shift.parse_prior.

    Unreadable images are left out of the metrics and listed. Writes the result as evaluate-<name>.json, and the probabilities as
    evaluate-<name>.parquet, into `out` (default: the run's predictions folder).

    Raises UserError where the class lists do not agree, the prepared set is not the one of the training, or there is nothing to
    evaluate.
    """
    started = time.perf_counter()
    folder = open_run(run)
    model, info = checkpoint.load_model(folder.root)
    classes, config = info.classes, info.config
    target_prior = prior_shift.parse_prior(prior, classes, info.prior)
    if data is None or is_prepared(data):
        prepared = own_prepared(folder) if data is None else open_prepared(data)
        origin, name = prepared.root, split if data is None else f"{_last(data)}-{split}"
        labelled = on_prepared(model, classes, config if data is None else _without_limit(config), prepared, split)
    else:
        origin, name, split = storage.absolute(data), _last(data), ""
        labelled = on_images(model, classes, config, data)
    readable = np.array([status == OK for status in labelled.status])
    if not readable.any():
        raise UserError(f"{origin}: none of the {len(readable):,} images can be read (the first: {labelled.status[0]})")
    probabilities = labelled.probabilities
    corrected, priors = prior_shift.apply(probabilities[readable], info.prior, target_prior)
    probabilities[readable], probabilities[~readable] = corrected, priors
    labels = np.array([classes.index(label) for label in labelled.labels], np.int64)
    name = "evaluate-" + (name if prior == "train" else f"{name}-{_slug(prior)}")
    target = storage.join(storage.absolute(out) if out else folder.url("predictions"), name)
    evaluation = from_probabilities(corrected, labels[readable], classes)
    result = EvaluationResult(
        **{field.name: getattr(evaluation, field.name) for field in dataclasses.fields(evaluation)},
        run=folder.root,
        data=origin,
        split=split,
        prior=prior,
        class_priors=dict(zip(classes, priors.tolist(), strict=True)),
        epoch=info.epoch,
        images=len(readable),
        unreadable=unreadable(labelled.paths, labelled.status),
        notes=labelled.notes,
        predictions=f"{target}.parquet",
        seconds=time.perf_counter() - started,
    )
    table = predictions_table(labelled.paths, classes, probabilities, labelled.status, labelled.labels)
    storage.write_table(result.predictions, table)
    storage.write_json(f"{target}.json", result.to_dict())
    return result


def own_prepared(run: Run) -> Prepared:
    """The prepared set that the run was trained on. Raises UserError where it is gone, or was made anew of other pictures or config."""
    environment = run.environment()
    if not environment.prepared:
        raise UserError(f"{run.root}: environment.json names no prepared set; say with --data what to evaluate on")
    prepared = open_prepared(environment.prepared)
    if prepared.fingerprint != environment.data_fingerprint:
        raise UserError(
            f"{prepared.root}: changed since the training of {run.root}; train again, or evaluate on it as other pictures with --data"
        )
    return prepared


def on_prepared(
    model: Classifier, classes: Sequence[str], config: Config, prepared: Prepared, split: str, flips: bool = False
) -> Classified:
    """The model on the rows of `split` (those that `config` trains with, where it has a limit), on this machine, without Ray. `flips`: see
    `batch_probabilities`."""
    missing, extra = (
        [c for c in classes if c not in prepared.classes],
        [c for c in prepared.classes if c not in classes],
    )
    if list(classes) != prepared.classes:
        raise UserError(
            f"{prepared.root}: other classes than the model's: {_differing(missing, extra)}; evaluate on a set of the same classes"
        )
    if prepared.stored_size < model.input_size:
        raise UserError(
            f"{prepared.root}: pictures are stored at {prepared.stored_size} px, the model reads {model.input_size} px; prepare them again"
        )
    rows = np.sort(sampling_plan(prepared, config).rows[split])
    if not len(rows):
        there = [
            f"{name} ({len(prepared.rows(name)):,})" for name in ("train", "val", "test") if len(prepared.rows(name))
        ]
        raise UserError(f"{prepared.root}: no pictures in split {split!r}; there are {', '.join(there)}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = _batches(prepared, rows, model.input_size)
    index, probabilities = batch_probabilities(model.to(device), batches, device, uses_bf16(config, device), flips)
    order = np.argsort(index)
    if not np.array_equal(index[order], rows):
        raise RuntimeError(f"{split}: the evaluated rows are not the split's rows: this is a bug, please report it")
    pictures, notes = prepared.manifest.iloc[rows], []
    if prepared.stored_size != config.data.stored_size:
        notes.append(
            f"stored at {prepared.stored_size} px, the training's pictures at {config.data.stored_size} px: they are resized a little differently"
        )
    return Classified(
        pictures["path"].tolist(), pictures["label"].tolist(), probabilities[order], [OK] * len(rows), notes
    )


def on_images(model: Classifier, classes: Sequence[str], config: Config, data: str) -> Classified:
    """The model on all pictures of a labelled folder or table, by Ray Data, as `predict` does it."""
    from animalclf.inference.classify import Options, classify  # imports Ray
    from animalclf.prepare import sources

    source = sources.find(data, config.data, labelled=True)
    labels = source.files["label"].tolist()
    missing, extra = sorted(set(classes) - set(labels)), sorted(set(labels) - set(classes))
    if extra:
        raise UserError(
            f"{data}: other classes than the model's: {_differing(missing, extra)}; leave out the unknown ones, or name them as the model does"
        )
    paths, notes = source.files["path"].tolist(), []
    if missing:
        notes.append(
            f"no pictures of {', '.join(missing)}: balanced accuracy and macro F1 are over the {len(set(labels))} classes that occur"
        )
    if (source.files["split"] != "").any():
        notes.append(f"its own split is not used: all {len(paths):,} pictures are evaluated")
    probabilities, status = classify(model, config, source.root, paths, Options(batch_size=BATCH))
    return Classified(paths, labels, probabilities, status, notes)


def table(result: EvaluationResult) -> list[RenderableType]:
    """An evaluation for people: the metrics with their intervals, the classes, the most confused pairs, the notes."""
    of = f"{result.data}{', ' + result.split if result.split else ''}"
    headline = Table(title=f"{result.rows:,} images of {of}", title_justify="left", show_header=False)
    headline.add_column(style="bold")
    headline.add_column()
    for line in metric_lines(result):
        headline.add_row(line.title, line.text)
    if result.prior != "train":
        headline.add_row("corrected for the prior", result.prior)
    shown: list[RenderableType] = [headline, _classes_table(result)]
    pairs = confused(result.confusion, result.classes)
    if pairs:
        mistakes = Table(title="most confused", title_justify="left")
        mistakes.add_column("is")
        mistakes.add_column("taken for")
        mistakes.add_column("images", justify="right")
        mistakes.add_column("of its class", justify="right")
        for true, predicted, count, fraction in pairs[:MAX_PAIRS]:
            mistakes.add_row(Text(true), Text(predicted), f"{count:,}", f"{fraction:.1%}")
        shown.append(mistakes)
    if result.unreadable:
        first = "; ".join(f"{image.path}: {image.reason}" for image in result.unreadable[:5])
        shown.append(Text(f"unreadable and left out: {len(result.unreadable):,} images ({first})", style="yellow"))
    return shown + [Text(f"note: {note}", style="yellow") for note in result.notes]


def confused(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> list[tuple[str, str, int, float]]:
    """(true class, predicted class, pictures, share of the true class) of every kind of mistake, the most frequent first."""
    counts = np.asarray(confusion)
    support = counts.sum(1)
    pairs = [(int(true), int(predicted)) for true, predicted in np.argwhere(counts) if true != predicted]
    pairs.sort(key=lambda pair: (-counts[pair], pair))
    return [
        (
            classes[true],
            classes[predicted],
            int(counts[true, predicted]),
            float(counts[true, predicted] / support[true]),
        )
        for true, predicted in pairs
    ]


def _classes_table(result: EvaluationResult) -> Table:
    per_class, classes = result.per_class.to_dict(), result.classes
    order = list(range(len(classes)))
    title = "classes"
    if len(classes) > MAX_CLASSES:
        order = sorted((n for n in order if per_class["support"][n]), key=lambda n: per_class["recall"][n])[
            :MAX_CLASSES
        ]
        title = f"the {len(order)} classes of {len(classes)} with the lowest recall"
    shown = Table(title=title, title_justify="left")
    shown.add_column("class")
    for name in ("images", "recall", "precision", "F1"):
        shown.add_column(name, justify="right")
    for number in order:
        figures = [
            "-" if (value := per_class[name][number]) is None else f"{value:.3f}"
            for name in ("recall", "precision", "f1")
        ]
        shown.add_row(Text(classes[number]), f"{per_class['support'][number]:,}", *figures)
    return shown


def _batches(prepared: Prepared, rows: np.ndarray, input_size: int) -> Iterator[Batch]:
    """The pictures of the manifest rows `rows`, shard by shard: one shard is in memory at a time."""
    wanted = np.zeros(len(prepared.manifest), bool)
    wanted[rows] = True
    for path in prepared.shard_paths():
        images, index = read_shard(path, prepared.stored_size)
        mine = np.flatnonzero(wanted[index])
        for pick in (mine[start : start + BATCH] for start in range(0, len(mine), BATCH)):
            yield {
                "image": evaluation_view(images[pick], input_size),
                "label": prepared.labels[index[pick]],
                "index": index[pick],
            }


def _without_limit(config: Config) -> Config:
    return replace(config, data=replace(config.data, limit=0))


def _differing(missing: Sequence[str], extra: Sequence[str]) -> str:
    parts = [f"unknown to the model: {', '.join(extra)}"] if extra else []
    return "; ".join(parts + ([f"known to the model only: {', '.join(missing)}"] if missing else []))


def _last(url: str) -> str:
    return _slug(storage.absolute(url).rsplit("/", 1)[-1])


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("_.-") or "data"
