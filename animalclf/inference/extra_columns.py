"""Columns of a table of predictions besides the class probabilities: more classes, prediction sets, `known`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from animalclf.errors import UserError
from animalclf.inference.known import scorer_or_reason
from animalclf.inference.prediction_sets import open_calibration
from animalclf.models.classifier import Classifier
from animalclf.predictions import FORMATS, OK, class_probabilities
from animalclf.runs import Run
from animalclf.training.checkpoint import ModelInfo
from animalclf.training.outputs import Summary


@dataclass(frozen=True)
class TableOptions:
    """What a table of predictions has besides its usual columns, and the format of its file."""

    top_k: int = 1
    """The most probable classes that have columns; the first is `predicted`."""
    sets: float = 0.0
    """Coverage of the prediction sets; 0 for none."""
    known: bool = True
    """Whether the image shows one of the classes, if the run has the score."""
    format: str = "parquet"
    """One of predictions.FORMATS."""

    def check(self) -> None:
        """Raise UserError for a number of classes or a format that is none."""
        if self.top_k < 1:
            raise UserError(f"top_k: {self.top_k} is not a number of classes; use 1 or more")
        if self.format not in FORMATS:
            raise UserError(f"format: {self.format!r} is not one of {', '.join(FORMATS)}")


DEFAULT_TABLE = TableOptions()


class ExtraColumns:
    """The columns of `options` for predictions by one model. The constructor raises UserError for what is not possible:
    see TableOptions.check and open_calibration."""

    def __init__(
        self,
        options: TableOptions,
        run: Run,
        model: Classifier,
        info: ModelInfo,
        views: str = "none",
        transport: bool = False,
    ) -> None:
        options.check()
        if options.sets and transport:
            raise UserError("sets: not with transport, which makes the probabilities depend on the other images")
        self.options, self.info = options, info
        self.calibration = open_calibration(run, info.classes, options.sets, views) if options.sets else None
        scorer, reason = scorer_or_reason(run, model, info) if options.known else (None, "")
        self.note = f"no column `known`: {reason}" if reason else ""
        self.summary: Summary | None = scorer.score if scorer else None

    def problem_of_sets(self, priors: np.ndarray) -> str:
        """See Calibration.problem; empty without sets."""
        return self.calibration.problem(self.info.prior, priors) if self.calibration else ""

    def add(self, table: pd.DataFrame, priors: np.ndarray, scores: np.ndarray | None) -> pd.DataFrame:
        """The table (see predictions_table) with its further columns. `priors`: those of its probabilities, float (C,).
        `scores`: what `summary` gave for its images, float32 (N,)."""
        classes = self.info.classes
        probabilities, readable = class_probabilities(table, classes), (table["status"] == OK).to_numpy()
        table = add_top_k(table, probabilities, classes, self.options.top_k)
        if self.calibration:
            members = self.calibration.sets(probabilities, self.info.prior, priors)
            table = add_sets(table, members, probabilities, classes)
        return table if scores is None else add_known(table, scores, readable)


def add_top_k(table: pd.DataFrame, probabilities: np.ndarray, classes: Sequence[str], top_k: int) -> pd.DataFrame:
    """The table with predicted_2, probability_2, ... up to `top_k`, of probabilities (N, C)."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]  # of equal ones the first class
    columns: dict[str, np.ndarray] = {}
    for rank in range(1, order.shape[1]):
        columns[f"predicted_{rank + 1}"] = np.array(classes, object)[order[:, rank]]
        columns[f"probability_{rank + 1}"] = np.take_along_axis(probabilities, order[:, rank : rank + 1], 1)[:, 0]
    return table.assign(**columns)


def add_sets(
    table: pd.DataFrame, members: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """The table with `set`: the classes of `members` bool (N, C), the most probable first, a list[str]."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    rows = zip(order.tolist(), members.tolist(), strict=True)
    sets = pd.Series([[classes[n] for n in numbers if inside[n]] for numbers, inside in rows], table.index, object)
    return table.assign(set=sets)


def add_known(table: pd.DataFrame, scores: np.ndarray, readable: np.ndarray) -> pd.DataFrame:
    """The table with `known` (yes, no, or empty for an unreadable image) and `known_score`, float32 (N,)."""
    known = np.where(readable, np.where(scores >= 0, "yes", "no"), "").astype(object)
    return table.assign(known=known, known_score=np.where(readable, scores, np.nan).astype(np.float32))
