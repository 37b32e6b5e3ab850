"""A run's best model on labelled pictures: its own prepared set, another one, or any labelled folder or table."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data.augment import evaluation_view
from animalclf.data.loader import Batch, make_schedule
from animalclf.data.prepared_set import Prepared, is_prepared, open_prepared, read_shard
from animalclf.errors import UserError
from animalclf.inference import prior_shift as priors
from animalclf.inference import submission
from animalclf.metrics import classification
from animalclf.models.classifier import Classifier
from animalclf.runs import Run, open_run
from animalclf.training import checkpoint, final_eval, loop
from animalclf.utils import storage

BATCH = 64
MOST_CLASSES, MOST_PAIRS = 40, 10  # rows that a table shows


@dataclass
class Classified:
    """Labelled pictures and what the model makes of them: `probabilities` float32 (N, C); a status other than "ok" makes its row meaningless."""

    paths: list[str]
    labels: list[str]
    probabilities: np.ndarray
    status: list[str]
    notes: list[str] = field(default_factory=list)


def evaluate(run: str, *, data: str | None = None, split: str = "val", prior: str = "train", out: str | None = None) -> dict[str, Any]:
    """Evaluate the run folder's best model on `split` of its own prepared set, or on `data`: another prepared set's `split`, or all pictures of
    a labelled folder or table. `prior`: see prior.parse_prior.

    Returns metrics.from_probabilities' figures with what they were measured on; pictures that cannot be read are left out of the figures and
    listed under "unreadable". Writes them as evaluate-<name>.json, and the probabilities as evaluate-<name>.parquet, into `out` (default:
    the run's predictions folder).

    Raises UserError where the class lists do not agree, the prepared set is not the one of the training, or there is nothing to evaluate.
    """
    started = time.perf_counter()
    folder = open_run(run)
    model, about = checkpoint.load_model(folder.root)
    classes, settings = list(about["classes"]), configuration.from_dict(about["config"])
    wanted = priors.parse_prior(prior, classes, about["prior"])
    if data is None or is_prepared(data):
        prepared = own_prepared(folder) if data is None else open_prepared(data)
        origin, name = prepared.root, split if data is None else f"{_last(data)}-{split}"
        done = on_prepared(model, classes, settings if data is None else _without_limit(settings), prepared, split)
    else:
        origin, name, split = storage.absolute(data), _last(data), ""
        done = on_pictures(model, classes, settings, data)
    readable = np.array([reason == submission.OK for reason in done.status])
    if not readable.any():
        raise UserError(f"{origin}: none of the {len(readable):,} pictures can be read (the first: {done.status[0]})")
    chances = done.probabilities
    corrected, shares = priors.apply(chances[readable], about["prior"], wanted)
    chances[readable], chances[~readable] = corrected, shares
    labels = np.array([classes.index(label) for label in done.labels], np.int64)
    name = "evaluate-" + (name if prior == "train" else f"{name}-{_slug(prior)}")
    target = storage.join(storage.absolute(out) if out else folder.url("predictions"), name)
    found = {
        "run": folder.root,
        "data": origin,
        "split": split,
        "prior": prior,
        "prior_shares": dict(zip(classes, shares.tolist(), strict=True)),
        "epoch": about["epoch"],
        "pictures": len(readable),
        "unreadable": submission.unreadable(done.paths, done.status),
        "notes": done.notes,
        **classification.from_probabilities(corrected, labels[readable], classes),
        "predictions": f"{target}.parquet",
        "seconds": time.perf_counter() - started,
    }
    storage.write_table(f"{target}.parquet", submission.predictions_table(done.paths, classes, chances, done.status, done.labels))
    storage.write_json(f"{target}.json", found)
    return found


def own_prepared(run: Run) -> Prepared:
    """The prepared set that the run was trained on. Raises UserError where it is gone, or was made anew of other pictures or settings."""
    facts = run.environment()
    if "prepared" not in facts:
        raise UserError(f"{run.root}: environment.json names no prepared set; say with --data what to evaluate on")
    prepared = open_prepared(facts["prepared"])
    if prepared.fingerprint != facts.get("data_fingerprint"):
        raise UserError(f"{prepared.root}: changed since the training of {run.root}; train again, or evaluate on it as other pictures with --data")
    return prepared


def on_prepared(model: Classifier, classes: Sequence[str], settings: Config, prepared: Prepared, split: str, flips: bool = False) -> Classified:
    """The model on the rows of `split` (those that `settings` trains with, where it has a limit), on this machine, without Ray. `flips`: see
    `chances_of`."""
    missing, extra = [c for c in classes if c not in prepared.classes], [c for c in prepared.classes if c not in classes]
    if list(classes) != prepared.classes:
        raise UserError(f"{prepared.root}: other classes than the model's: {_differing(missing, extra)}; evaluate on a set of the same classes")
    if prepared.stored_size < model.input_size:
        raise UserError(
            f"{prepared.root}: pictures are stored at {prepared.stored_size} px, the model reads {model.input_size} px; prepare them again"
        )
    rows = np.sort(make_schedule(prepared, settings).rows[split])
    if not len(rows):
        there = [f"{name} ({len(prepared.rows(name)):,})" for name in ("train", "val", "test") if len(prepared.rows(name))]
        raise UserError(f"{prepared.root}: no pictures in split {split!r}; there are {', '.join(there)}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    index, probabilities = chances_of(model.to(device), _batches(prepared, rows, model.input_size), device, bf16(settings, device), flips)
    order = np.argsort(index)
    if not np.array_equal(index[order], rows):
        raise RuntimeError(f"{split}: the evaluated rows are not the split's rows: this is a bug, please report it")
    pictures, notes = prepared.manifest.iloc[rows], []
    if prepared.stored_size != settings.data.stored_size:
        notes.append(
            f"stored at {prepared.stored_size} px, the training's pictures at {settings.data.stored_size} px: they are resized a little differently"
        )
    return Classified(pictures["path"].tolist(), pictures["label"].tolist(), probabilities[order], [submission.OK] * len(rows), notes)


def on_pictures(model: Classifier, classes: Sequence[str], settings: Config, data: str) -> Classified:
    """The model on all pictures of a labelled folder or table, by Ray Data, as `predict` does it."""
    from animalclf.inference.predict import classify
    from animalclf.prepare import sources

    source = sources.find(data, settings.data, labelled=True)
    labels = source.files["label"].tolist()
    missing, extra = sorted(set(classes) - set(labels)), sorted(set(labels) - set(classes))
    if extra:
        raise UserError(
            f"{data}: other classes than the model's: {_differing(missing, extra)}; leave out the unknown ones, or name them as the model does"
        )
    paths, notes = source.files["path"].tolist(), []
    if missing:
        notes.append(f"no pictures of {', '.join(missing)}: balanced accuracy and macro F1 are over the {len(set(labels))} classes that occur")
    if (source.files["split"] != "").any():
        notes.append(f"its own split is not used: all {len(paths):,} pictures are evaluated")
    probabilities, status = classify(model, settings, source.root, paths, batch_size=BATCH)
    return Classified(paths, labels, probabilities, status, notes)


def chances_of(model: Classifier, batches: Iterator[Batch], device: torch.device, bf16: bool, flips: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 (N,) and class probabilities float32 (N, C), as final.predict gives them; with `flips` the rows ascend, and each has the mean over
    the picture and its mirror image."""
    if not flips:
        return final_eval.predict(model, model.classes, batches, device, bf16)
    index, chances = final_eval.predict(model, model.classes, (view for batch in batches for view in (batch, _mirrored(batch))), device, bf16)
    order = np.argsort(index, kind="stable")  # brings each row's two views together
    return index[order][::2], chances[order].reshape(-1, 2, chances.shape[1]).mean(1)


def _mirrored(batch: Batch) -> Batch:
    return {**batch, "image": np.ascontiguousarray(batch["image"][:, :, ::-1])}


def bf16(settings: Config, device: torch.device) -> bool:
    """Whether the model computes in bfloat16: on a GPU as in training, on a CPU only where the configuration asks for it by name."""
    return settings.train.precision == "bf16" if device.type == "cpu" else loop.choose_bf16(settings.train.precision, device)


def table(evaluation: dict[str, Any]) -> list[RenderableType]:
    """What `evaluate` returned, for people: the figures with their intervals, the classes, the most confused pairs, the notes."""
    of = f"{evaluation['data']}{', ' + evaluation['split'] if evaluation['split'] else ''}"
    headline = Table(title=f"{evaluation['rows']:,} pictures of {of}", title_justify="left", show_header=False)
    headline.add_column(style="bold")
    headline.add_column()
    for name, title in (("accuracy", "accuracy"), ("balanced_accuracy", "balanced accuracy"), ("macro_f1", "macro F1")):
        low, high = evaluation["intervals"][name]
        headline.add_row(title, f"{evaluation[name]:.4f}  (95 %: {low:.4f} to {high:.4f})")
    headline.add_row("right among the first 2", f"{evaluation['top2_accuracy']:.4f}")
    headline.add_row("loss", f"{evaluation['loss']:.4f}")
    headline.add_row("calibration error", f"{evaluation['ece']:.4f}")
    if evaluation["prior"] != "train":
        headline.add_row("corrected for the prior", evaluation["prior"])
    shown: list[RenderableType] = [headline, _classes_table(evaluation)]
    pairs = confused(evaluation["confusion"], evaluation["classes"])
    if pairs:
        mistakes = Table(title="most confused", title_justify="left")
        mistakes.add_column("is")
        mistakes.add_column("taken for")
        mistakes.add_column("pictures", justify="right")
        mistakes.add_column("of its class", justify="right")
        for true, predicted, count, share in pairs[:MOST_PAIRS]:
            mistakes.add_row(Text(true), Text(predicted), f"{count:,}", f"{share:.1%}")
        shown.append(mistakes)
    if evaluation["unreadable"]:
        first = "; ".join(f"{picture['path']}: {picture['reason']}" for picture in evaluation["unreadable"][:5])
        shown.append(Text(f"unreadable and left out: {len(evaluation['unreadable']):,} pictures ({first})", style="yellow"))
    shown += [Text(f"note: {note}", style="yellow") for note in evaluation["notes"]]
    return shown


def confused(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> list[tuple[str, str, int, float]]:
    """(true class, predicted class, pictures, share of the true class) of every kind of mistake, the most frequent first."""
    counts = np.asarray(confusion)
    support = counts.sum(1)
    pairs = [(int(true), int(predicted)) for true, predicted in np.argwhere(counts) if true != predicted]
    pairs.sort(key=lambda pair: (-counts[pair], pair))
    return [
        (classes[true], classes[predicted], int(counts[true, predicted]), float(counts[true, predicted] / support[true])) for true, predicted in pairs
    ]


def _classes_table(evaluation: dict[str, Any]) -> Table:
    per_class, classes = evaluation["per_class"], evaluation["classes"]
    order = list(range(len(classes)))
    title = "classes"
    if len(classes) > MOST_CLASSES:
        order = sorted((n for n in order if per_class["support"][n]), key=lambda n: per_class["recall"][n])[:MOST_CLASSES]
        title = f"the {len(order)} classes of {len(classes)} with the lowest recall"
    shown = Table(title=title, title_justify="left")
    shown.add_column("class")
    for name in ("pictures", "recall", "precision", "F1"):
        shown.add_column(name, justify="right")
    for number in order:
        figures = ["-" if (value := per_class[name][number]) is None else f"{value:.3f}" for name in ("recall", "precision", "f1")]
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
            yield {"image": evaluation_view(images[pick], input_size), "label": prepared.labels[index[pick]], "index": index[pick]}


def _without_limit(settings: Config) -> Config:
    return replace(settings, data=replace(settings.data, limit=0))


def _differing(missing: Sequence[str], extra: Sequence[str]) -> str:
    parts = [f"unknown to the model: {', '.join(extra)}"] if extra else []
    return "; ".join(parts + ([f"known to the model only: {', '.join(missing)}"] if missing else []))


def _last(url: str) -> str:
    return _slug(storage.absolute(url).rsplit("/", 1)[-1])


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text).strip("_.-") or "data"
