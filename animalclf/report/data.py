"""The content of a report: run folders, the leaderboard, ensembles, failed trials and the prepared set."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from animalclf.config import Config
from animalclf.data.prepared_set import Prepared, open_prepared
from animalclf.data.run_images import prepared_root
from animalclf.errors import UserError
from animalclf.metrics import PRIMARY
from animalclf.report.map_features import map_features
from animalclf.report.reference_results import ReferenceResults, recipes_with_reference, reference_results
from animalclf.report.survey import Survey, survey
from animalclf.rows import (
    EnsembleResult,
    Environment,
    EpochRow,
    Evaluation,
    Leaderboard,
    LeaderboardPair,
    LeaderboardRow,
    TrainingResult,
    TrialEntry,
)
from animalclf.runs import Run
from animalclf.utils import storage
from animalclf.utils.text import count_text


@dataclass(frozen=True)
class RunRecord:
    """A run folder, read: `history` has the rows of metrics.jsonl, `result` is None for an unfinished run."""

    run: Run
    config: Config
    environment: Environment
    history: list[EpochRow]
    result: TrainingResult | None

    @property
    def label(self) -> str:
        return f"{self.config.name}, seed {self.config.seed}"

    @property
    def val(self) -> Evaluation | None:
        """Validation metrics; None for an unfinished run and for one without validation images."""
        return self.result.val if self.result else None


@dataclass(frozen=True)
class ReportData:
    """The content of a report. `failed`: trials of a comparison; `prepared`: the prepared set of the first run, or
    None, and then `prepared_error` is why it cannot be opened; `all_references`: show the reference results of the
    recipes for any images."""

    runs: list[RunRecord]
    board: Leaderboard | None
    ensembles: list[EnsembleResult]
    failed: list[TrialEntry]
    prepared: Prepared | None
    prepared_error: str
    all_references: bool

    @property
    def rows(self) -> list[LeaderboardRow]:
        """The leaderboard's rows, the best first; empty without a leaderboard."""
        return self.board.rows if self.board else []

    @property
    def pairs(self) -> list[LeaderboardPair]:
        """The leaderboard's pairwise differences."""
        return self.board.pairs if self.board else []

    @property
    def finished(self) -> list[RunRecord]:
        return [record for record in self.runs if record.result]

    @functools.cached_property
    def best(self) -> list[RunRecord]:
        """The best finished run of each recipe on the leaderboard, the best recipe first; without a leaderboard all
        finished runs, the best first."""
        ranked = sorted(self.finished, key=lambda record: -(record.val[PRIMARY] if record.val else 0.0))
        recipes = [set(row.runs) for row in self.rows if row.kind == "model"]
        if not recipes:
            return ranked
        first = [next((record for record in ranked if record.run.root in roots), None) for roots in recipes]
        return [record for record in first if record]

    @property
    def validated(self) -> list[tuple[RunRecord, Evaluation]]:
        """Those of `best` that have validation metrics, with them."""
        return [(record, record.val) for record in self.best if record.val]

    @functools.cached_property
    def predictions(self) -> list[pd.DataFrame]:
        """Class probabilities of the validation images, one table for each of `validated`, sorted by path."""
        tables = [record.run.predictions("val", validation.classes) for record, validation in self.validated]
        return [table.sort_values("path", ignore_index=True) for table in tables]

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """Width and height of the validation images, float64 (N, 2) in the order of `predictions`; nan if unknown."""
        manifest = self.prepared.manifest if self.prepared else pd.DataFrame({"path": []})
        sizes = manifest.drop_duplicates("path").set_index("path").reindex(columns=["width", "height"])
        return sizes.reindex(self.predictions[0]["path"]).to_numpy(np.float64)

    @functools.cached_property
    def image_map(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The rows of `predictions` that the map shows, and their features; None without a model or images."""
        return map_features(self.validated[0][0].run, self.predictions[0]) if self.validated else None

    @functools.cached_property
    def survey(self) -> Survey:
        """Of the stored validation images, in the order of `predictions`; with thumbnails of those on the map."""
        shown = self.image_map[0] if self.image_map else np.zeros(0, np.int64)
        return survey(self.prepared, self.predictions[0]["path"].tolist(), shown)

    @functools.cached_property
    def references(self) -> dict[str, ReferenceResults]:
        """The reference results to show, by recipe: of the recipes of `runs` that have some, if the run's images are
        the reference's or with `all_references`."""
        references = {}
        for record in self.runs:
            results = reference_results(record.config.name)
            if results and (self.all_references or results.are_of(*self._classes_and_images(record))):
                references[record.config.name] = results
        return references

    def _classes_and_images(self, record: RunRecord) -> tuple[list[str], int]:
        """The classes and the number of images of all splits of a run, if it is unfinished of its prepared set; none if
        that cannot be opened."""
        if record.result:
            return record.result.classes, sum(record.result.rows.values())
        if not self.prepared:
            return [], 0
        return self.prepared.classes, sum(len(self.prepared.rows(split)) for split in ("train", "val", "test"))


def read(
    runs: Sequence[Run],
    board: Leaderboard | None = None,
    ensembles: Sequence[EnsembleResult] = (),
    failed: Sequence[TrialEntry] = (),
    reference: bool = False,
) -> ReportData:
    """Read run folders, finished or not. `reference`: show reference results for any images.

    Raises UserError naming the file that a folder lacks, or, with `reference`, if no recipe has reference results. A
    missing prepared set is no error."""
    records = [_record(run) for run in runs]
    recipes = dict.fromkeys(run.config.name for run in records)
    if reference and not any(map(reference_results, recipes)):
        raise UserError(
            f"--reference: there are no reference results of {', '.join(recipes)}; recipes that have some: "
            f"{', '.join(recipes_with_reference())}"
        )
    prepared, error = None, ""
    try:
        prepared = open_prepared(prepared_root(records[0].run))
    except UserError as missing:
        error = str(missing)
    return ReportData(records, board, list(ensembles), list(failed), prepared, error, reference)


def _record(run: Run) -> RunRecord:
    history, result = run.metrics(), run.result() if run.finished() else None
    if result and len(history) < result.epochs:
        file = run.url("metrics.jsonl")
        raise UserError(
            f"{file}: has {len(history)} of the run's {count_text(result.epochs, 'epoch')}; {storage.RESTORE}"
        )
    return RunRecord(run, run.config(), run.environment(), history, result)
