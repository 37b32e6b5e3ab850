"""Several finished runs as one model: calibrated, mixed, evaluated on validation like a model, and used for a submission."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from animalclf.errors import UserError
from animalclf.inference import mixing, prior_shift, submission
from animalclf.inference.evaluate import on_prepared, own_prepared
from animalclf.inference.members import Validated, side_by_side
from animalclf.metrics import from_probabilities, main_metrics
from animalclf.predictions import OK, class_probabilities, predicted_counts, predictions_table, unreadable
from animalclf.prepare import sources
from animalclf.rows import CrossFitting, EnsembleResult, Evaluation, Row
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.utils import storage


def ensemble(
    members: Sequence[Run],
    out: str,
    *,
    methods: Sequence[str] = mixing.METHODS,
    data: str | None = None,
    flips: bool = False,
    prior: str = "train",
    sample_submission: str | None = None,
    **options: Any,
) -> list[EnsembleResult]:
    """Mix finished runs, by each of `methods`, into a folder `out`/<method> with result.json and predictions/val.parquet, as a run has them.

    "vote": the class that most members name; ties go to the best member, by balanced accuracy, that voted for one of the tied classes. "mean": the
    mean of the members' probabilities. "weighted": their mean with the weights that fit validation best. Every member is first calibrated by a
    temperature, and so is the mixture at last. Temperatures, weights and the ranking are fitted on the validation pictures, so the figures are
    cross-fitted: each of mixing.FOLDS folds (copies of a picture lie in one fold, where the prepared set is still there) is judged with what was
    fitted on the others. Prediction uses what was fitted on all. `flips`: each member gives the mean over the picture and its mirror image.

    With `data`, unlabelled pictures, predictions.parquet and submission.csv are written beside result.json. Each member predicts once, into
    `out`/members, and not again while its checkpoint and the pictures stay. Members are corrected for `prior` (see prior_shift.parse_prior), each for
    the class priors it was trained under, after calibration and before they are mixed. `options`: `limit`, and those of classify.Options.

    Returns one result a method. Raises UserError, before any long work, for fewer than two members, an unfinished run, runs that were not validated
    on the same pictures with the same classes, an unknown method, and whatever predict refuses.
    """
    unknown = [method for method in methods if method not in mixing.METHODS]
    if unknown or not methods:
        raise UserError(f"method {', '.join(unknown) or 'missing'}: choose among {', '.join(mixing.METHODS)}")
    if len(members) < 2:
        raise UserError("an ensemble needs at least two runs; name two or more run folders")
    validated = side_by_side(members)
    out = storage.absolute(out)
    job = _Prediction(members, validated.classes, data, prior, sample_submission, options) if data else None
    if flips:
        validated = replace(validated, probabilities=_with_flips(members, validated))
    groups, grouped = _groups(members[0], validated.paths)
    fold = mixing.folds(validated.labels, groups)
    if fold.max() < 1:
        raise UserError(
            f"{members[0].root}: one validation picture is too little to fit an ensemble on; prepare more with data.val"
        )
    tables = job.tables(storage.join(out, "members"), flips) if job else []
    cross_fitted = CrossFitting(folds=int(fold.max()) + 1, duplicates_together=grouped)
    results = []
    for method in dict.fromkeys(methods):
        mixture = mixing.fit(method, validated.probabilities, validated.labels)
        mixed = mixing.cross_fitted(method, validated.probabilities, validated.labels, fold)
        run = Run(storage.join(out, method))
        result = _result(
            run, members, mixture, from_probabilities(mixed, validated.labels, validated.classes), flips, cross_fitted
        )
        labels = [validated.classes[label] for label in validated.labels]
        run.write_predictions(
            "val", predictions_table(validated.paths, validated.classes, mixed, [OK] * len(labels), labels)
        )
        if job:
            result = job.predicted(result, tables, mixture)
        run.write_result(result.to_dict())
        results.append(result)
    return results


def _result(
    run: Run, members: Sequence[Run], mixture: mixing.Mixture, val: Evaluation, flips: bool, cross_fitted: CrossFitting
) -> EnsembleResult:
    return EnsembleResult(
        name=f"ensemble {mixture.method}{' with flips' if flips else ''}",
        method=mixture.method,
        members=[member.root for member in members],
        best=members[mixture.ranking[0]].root,
        temperatures=mixture.temperatures.tolist(),
        last_temperature=mixture.last,
        weights=mixture.weights.tolist(),
        flips=flips,
        cross_fitted=cross_fitted,
        classes=val.classes,
        val=val,
        run=run.root,
        metrics=main_metrics(val),
    )


@dataclass(frozen=True)
class _Inputs(Row):
    """What stored member predictions depend on: the content of made_of.json."""

    checkpoint: str = ""
    """SHA-256 of the file."""
    images: str = field(default="", metadata={"old_keys": ["pictures"]})
    """Hash of the listing."""
    limit: int = 0
    flips: bool = False


class _Prediction:
    """The unlabelled images of an ensemble. Made before any long work: raises UserError for what the user can fix."""

    def __init__(
        self,
        members: Sequence[Run],
        classes: Sequence[str],
        data: str,
        prior: str,
        sample_submission: str | None,
        options: dict[str, Any],
    ) -> None:
        self.members, self.classes, self.data, self.prior = members, classes, data, prior
        self.sample, self.limit, self.options = sample_submission, options.pop("limit", 0), options
        self.trained_priors = [checkpoint.load(member.checkpoint("best"))["prior"] for member in members]
        self.target_priors = [prior_shift.parse_prior(prior, classes, trained) for trained in self.trained_priors]
        self.source = sources.find(data, members[0].config().data, labelled=False)
        self.paths = submission.first_images(self.source.files["path"], self.limit)
        self.ids = submission.ids_of(self.paths)
        self.columns = submission.columns_like(sample_submission, self.ids)

    def tables(self, folder: str, flips: bool) -> list[pd.DataFrame]:
        """Each member's predictions under its own training prior, stored in `folder` and used again while they fit."""
        tables = []
        for member in self.members:
            name = f"{member.root.rsplit('/', 1)[-1]}-{hashlib.sha256(member.root.encode()).hexdigest()[:8]}"
            table = self._table(member, storage.join(folder, name), flips)
            if table["path"].tolist() != self.paths:
                raise UserError(
                    f"{self.data}: its images changed while they were predicted; run the same command again"
                )
            tables.append(table)
        return tables

    def _table(self, member: Run, folder: str, flips: bool) -> pd.DataFrame:
        from animalclf.inference import predict  # imports Ray

        inputs = _Inputs(
            checkpoint=hashlib.sha256(storage.read_bytes(member.checkpoint("best"))).hexdigest(),
            images=sources.inputs_hash(self.source, member.config().data),
            limit=self.limit,
            flips=flips,
        )
        note, table = storage.join(folder, "made_of.json"), storage.join(folder, "predictions.parquet")
        if not (
            storage.exists(note) and _Inputs.from_dict(storage.read_json(note)) == inputs and storage.exists(table)
        ):
            storage.remove(note)  # first, so that it never vouches for another prediction's table
            predict.predict(member.root, self.data, folder, limit=self.limit, flips=flips, **self.options)
            storage.write_json(note, inputs.to_dict())
        return storage.as_table(storage.read_bytes(table))

    def predicted(
        self, result: EnsembleResult, tables: Sequence[pd.DataFrame], mixture: mixing.Mixture
    ) -> EnsembleResult:
        """`result` with what its mixture of the members' tables predicts, written as predictions.parquet and submission.csv. An image that a
        member could not read gets the class priors."""
        states = np.stack([table["status"].to_numpy(object) for table in tables])
        readable = (states == OK).all(0)
        status = [next((state for state in column if state != OK), OK) for column in states.T]
        probabilities = np.stack([class_probabilities(table, self.classes) for table in tables])
        calibrated = mixture.calibrate(probabilities[:, readable])
        pairs = zip(calibrated, self.trained_priors, self.target_priors, strict=True)
        corrected = [prior_shift.apply(one, trained, target) for one, trained, target in pairs]
        priors = np.mean([used for _, used in corrected], axis=0)
        mixed = np.tile(priors, (len(self.paths), 1))
        mixed[readable] = mixture.mix(np.stack([one for one, _ in corrected]))
        table = predictions_table(self.paths, self.classes, mixed, status)
        targets = {
            "predictions": storage.join(result.run, "predictions.parquet"),
            "submission": storage.join(result.run, "submission.csv"),
        }
        storage.write_table(targets["predictions"], table)
        submission.write(targets["submission"], self.ids, table["predicted"].tolist(), self.columns)
        if self.sample:
            submission.check(targets["submission"], self.sample, self.classes)
        return replace(
            result,
            data=self.source.root,
            images=len(self.paths),
            unreadable=unreadable(self.paths, status),
            prior=self.prior,
            class_priors=dict(zip(self.classes, priors.tolist(), strict=True)),
            predicted=predicted_counts(table, self.classes),
            predictions=targets["predictions"],
            submission=targets["submission"],
        )


def _with_flips(members: Sequence[Run], validated: Validated) -> np.ndarray:
    """The members' validation probabilities float32 (M, N, C), each the mean over the image and its mirror image, from their prepared sets."""
    sets = [own_prepared(member) for member in members]  # all, before the first works
    probabilities = []
    for member, prepared in zip(members, sets, strict=True):
        model, info = checkpoint.load_model(member.root)
        flipped = on_prepared(model, validated.classes, info.config, prepared, "val", flips=True)
        place = {path: row for row, path in enumerate(flipped.paths)}
        probabilities.append(flipped.probabilities[[place[path] for path in validated.paths]])
    return np.stack(probabilities)


def _groups(member: Run, paths: Sequence[str]) -> tuple[np.ndarray, bool]:
    """Which pictures are copies of one another, int64 (N,), and whether that is known: the prepared set may be gone since."""
    alone = np.arange(len(paths))
    try:
        manifest = own_prepared(member).manifest
    except UserError:
        return alone, False
    if "group" not in manifest or not set(paths) <= set(manifest["path"]):
        return alone, False
    return manifest.set_index("path")["group"].loc[list(paths)].to_numpy(np.int64), True
