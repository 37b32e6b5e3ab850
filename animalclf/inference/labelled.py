"""Predictions of a model for labelled images: of a prepared set, or of any labelled folder or table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data.augment import evaluation_view
from animalclf.data.loader import Batch
from animalclf.data.prepared_set import Prepared
from animalclf.data.sampler import sampling_plan
from animalclf.data.shards import read_shard
from animalclf.errors import UserError
from animalclf.inference.probabilities import uses_bf16, view_outputs
from animalclf.inference.views import check_views
from animalclf.models.classifier import Classifier
from animalclf.predictions import OK
from animalclf.training.outputs import Summary
from animalclf.utils.progress import ProgressLine
from animalclf.utils.text import count_clause, name_difference

BATCH = 64


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
    source: str | None = None
    """The folder or table that the prepared set was made of."""
    summaries: np.ndarray | None = None
    """Of the features, float32 (N, ...), if they were asked for."""
    view_probabilities: np.ndarray | None = None
    """Of each of V views, the image itself first, float32 (N, V, C), for the images of a prepared set."""

    def class_numbers(self, classes: Sequence[str]) -> np.ndarray:
        """The labels as positions in `classes`, int64 (N,)."""
        return np.array([classes.index(label) for label in self.labels], np.int64)


def predict_prepared(
    model: Classifier,
    classes: Sequence[str],
    config: Config,
    prepared: Prepared,
    split: str,
    views: str = "none",
    summary: Summary | None = None,
) -> LabelledPredictions:
    """Predictions for the rows of `split` (within the limit that `config` trains with), in this process, without Ray.
    `views`, `summary`: see `batch_outputs`."""
    check_views(views)
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
        outputs = view_outputs(model.to(device), batches, device, uses_bf16(config, device), views, summary)
    order = np.argsort(outputs.rows)
    if not np.array_equal(outputs.rows[order], rows):
        raise RuntimeError(f"{split}: the evaluated rows are not the split's rows: this is a bug, please report it")
    images, notes = prepared.manifest.iloc[rows], []
    if prepared.stored_size != config.data.stored_size:
        notes.append(
            f"stored at {prepared.stored_size} px, the training images at {config.data.stored_size} px: "
            "they are resized a little differently"
        )
    paths, labels = images["path"].tolist(), images["label"].tolist()
    groups = None if prepared.groups is None else prepared.groups[rows]
    view_probabilities = outputs.probabilities[order]
    return LabelledPredictions(
        paths=paths,
        labels=labels,
        probabilities=view_probabilities.mean(1),
        view_probabilities=view_probabilities,
        status=[OK] * len(rows),
        notes=notes,
        groups=groups,
        summaries=None if outputs.summaries is None else outputs.summaries[order],
    )


def predict_images(
    model: Classifier,
    classes: Sequence[str],
    config: Config,
    data: str,
    views: str = "none",
    summary: Summary | None = None,
) -> LabelledPredictions:
    """Predictions for all images of a labelled folder or table, with Ray Data. `views`, `summary`: see
    `batch_outputs`."""
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
        notes.append(f"its own split is not used: {count_clause(len(paths), 'image', 'are evaluated')}")
    classified = classify(model, config, source.root, paths, Options(batch_size=BATCH, views=views), summary)
    return LabelledPredictions(
        paths, labels, classified.probabilities, classified.status, notes, summaries=classified.summaries
    )


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


def _class_difference(model_classes: Sequence[str], classes: Sequence[str]) -> str:
    return name_difference(classes, model_classes, "unknown to the model", "known to the model only")
