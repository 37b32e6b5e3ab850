"""Ensembles of finished runs: calibrated, mixed, evaluated on validation like a model, and used for a submission."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from animalclf.data.run_images import prepared_set_of
from animalclf.errors import UserError
from animalclf.features.folds import deal_folds
from animalclf.inference import mixing, prior_shift, submission
from animalclf.inference.extra_columns import TableOptions
from animalclf.inference.labelled import predict_prepared
from animalclf.inference.validation import ValidationPredictions, validation_predictions
from animalclf.inference.views import check_views
from animalclf.metrics import from_probabilities, main_metrics
from animalclf.predictions import OK, class_probabilities, predicted_counts, predictions_table, unreadable
from animalclf.prepare import sources
from animalclf.rows import CrossFitting, EnsembleResult, Evaluation, Row
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.utils import storage
from animalclf.utils.console import show_line


def ensemble(
    members: Sequence[Run],
    out: str,
    *,
    methods: Sequence[str] = mixing.METHODS,
    data: str | None = None,
    views: str = "none",
    prior: str = "train",
    sample_submission: str | None = None,
    **options: Any,
) -> list[EnsembleResult]:
    """Combine finished runs by each of `methods`. Writes result.json and predictions/val.parquet, in the format of a
    run, to `out`/<method>.

    "vote": the class with the most votes; a tie goes to the tied class of the member with the best balanced accuracy.
    "mean": the mean of the members' probabilities. "weighted": their mean with fitted weights, which are pulled towards
    equal ones as is best out of fold.
    Each member is calibrated by a temperature before mixing, and the mixture after it. Temperatures, weights and the
    ranking are fitted on the validation images, so the metrics are cross-fitted: each of mixing.FOLDS folds is
    predicted with parameters fitted on the other folds. Duplicates are in one fold if they are known.
    The prediction of `data` uses parameters fitted on all validation images. `views`: one of views.VIEWS, over which
    each member averages.

    `data`: unlabelled images. Their predictions.parquet and submission.csv are written beside result.json. Each member
    predicts once, into `out`/members, and again only if its checkpoint or the images changed. Members are corrected
    for `prior` (see prior_shift.parse_prior), each from its training priors, after calibration and before they are
    mixed. `options`: `limit`, and those of classify.Options.

    Returns one result per method. Raises UserError, before any long work, for fewer than two members, an unfinished
    run, runs that were not validated on the same images with the same classes, an unknown method, and for all that
    `predict` raises it for.
    """
    _check(members, methods)
    validated = validation_predictions(members)
    out = storage.absolute(out)
    unlabelled = (
        _UnlabelledImages(members, validated.classes, data, prior, sample_submission, options) if data else None
    )
    check_views(views)
    if views != "none":
        if folded := [member.root for member in members if member.result().folds]:
            raise UserError(
                f"{folded[0]}: --views {views}: not with a run of folds, whose model was trained on these images"
            )
        validated = replace(validated, probabilities=_of_views(members, validated, views))
    fold, cross_fitting = _folds(members[0], validated)
    tables = unlabelled.tables(storage.join(out, "members"), views) if unlabelled else []
    results = []
    for method in dict.fromkeys(methods):
        mixture, mixed = mixing.fit_out_of_fold(method, validated.probabilities, validated.labels, fold)
        run = Run(storage.join(out, method))
        val = from_probabilities(mixed, validated.labels, validated.classes, validated.groups)
        result = _result(run, members, mixture, val, views, cross_fitting)
        labels = [validated.classes[label] for label in validated.labels]
        status = [OK] * len(labels)
        table = predictions_table(validated.paths, validated.classes, mixed, status, labels, validated.groups)
        run.write_predictions("val", table)
        if unlabelled:
            result = unlabelled.predict(result, tables, mixture)
        run.write_result(result.to_dict())
        results.append(result)
    return results


def _check(members: Sequence[Run], methods: Sequence[str]) -> None:
    unknown = [method for method in methods if method not in mixing.METHODS]
    if unknown or not methods:
        raise UserError(f"method {', '.join(unknown) or 'missing'}: choose among {', '.join(mixing.METHODS)}")
    if len(members) < 2:
        raise UserError("an ensemble needs at least two runs; name two or more run folders")


def _result(
    run: Run, members: Sequence[Run], mixture: mixing.Mixture, val: Evaluation, views: str, cross_fitting: CrossFitting
) -> EnsembleResult:
    return EnsembleResult(
        name=f"ensemble {mixture.method}{f' with views {views}' if views != 'none' else ''}",
        method=mixture.method,
        members=[member.root for member in members],
        best=members[mixture.ranking[0]].root,
        temperatures=mixture.temperatures.tolist(),
        last_temperature=mixture.last_temperature,
        weights=mixture.weights.tolist(),
        flips=views != "none",
        cross_fitted=cross_fitting,
        classes=val.classes,
        val=val,
        run=run.root,
        metrics=main_metrics(val),
        views=views if views != "none" else None,
    )


@dataclass(frozen=True)
class _Inputs(Row):
    """The inputs of a member's cached predictions: the content of made_of.json."""

    checkpoint: str = ""
    """SHA-256 of the file."""
    images: str = field(default="", metadata={"old_keys": ["pictures"]})
    """Hash of the listing."""
    limit: int = 0
    views: str = ""
    temperature: float = 1.0


class _UnlabelledImages:
    """The unlabelled images that an ensemble predicts. The constructor checks all arguments and raises UserError."""

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
        self.limit, self.options = options.pop("limit", 0), options
        self.train_priors = [checkpoint.load(member.checkpoint("best"))["prior"] for member in members]
        self.target_priors = [prior_shift.parse_prior(prior, classes, train) for train in self.train_priors]
        self.source = sources.find(data, members[0].config().data, labelled=False)
        self.paths = submission.first_images(self.source.files["path"], self.limit)
        self.ids = submission.image_ids(self.paths)
        self.form = submission.form_like(sample_submission, self.ids, classes)
        if self.form.note:
            show_line(self.form.note)

    def tables(self, folder: str, views: str) -> list[pd.DataFrame]:
        """Each member's predictions under its training priors, cached in `folder`."""
        tables = []
        for member in self.members:
            name = f"{member.root.rsplit('/', 1)[-1]}-{hashlib.sha256(member.root.encode()).hexdigest()[:8]}"
            table = self._table(member, storage.join(folder, name), views)
            if table["path"].tolist() != self.paths:
                raise UserError(f"{self.data}: its images changed during the prediction; run the same command again")
            tables.append(table)
        return tables

    def _table(self, member: Run, folder: str, views: str) -> pd.DataFrame:
        from animalclf.inference import predict  # imports Ray

        inputs = _Inputs(
            checkpoint=hashlib.sha256(storage.read_own(member.checkpoint("best"))).hexdigest(),
            images=sources.inputs_hash(self.source, member.config().data),
            limit=self.limit,
            views=views,
            temperature=member.result().temperature or 1.0,
        )
        cache_key, table = storage.join(folder, "made_of.json"), storage.join(folder, "predictions.parquet")
        cached = _Inputs.from_dict(storage.read_json(cache_key)) if storage.exists(cache_key) else None
        if cached != inputs or not storage.exists(table):
            storage.remove(cache_key)  # an interrupt must not leave the key of one table beside another
            predict.predict(
                member.root,
                self.data,
                folder,
                limit=self.limit,
                views=views,
                columns=TableOptions(known=False),
                **self.options,
            )
            storage.write_json(cache_key, inputs.to_dict())
        return storage.read_table(table)

    def predict(
        self, result: EnsembleResult, tables: Sequence[pd.DataFrame], mixture: mixing.Mixture
    ) -> EnsembleResult:
        """Write predictions.parquet and submission.csv of the mixture of the members' tables. Returns `result` with
        the fields of the prediction. An image that a member could not read gets the class priors."""
        member_status = np.stack([table["status"].to_numpy(object) for table in tables])
        readable = (member_status == OK).all(0)
        status = [next((reason for reason in reasons if reason != OK), OK) for reasons in member_status.T]
        probabilities = np.stack([class_probabilities(table, self.classes) for table in tables])
        calibrated = mixture.calibrate(probabilities[:, readable])
        members = zip(calibrated, self.train_priors, self.target_priors, strict=True)
        corrected, priors = zip(*(prior_shift.apply(*member) for member in members), strict=True)
        mean_priors = np.mean(priors, axis=0)
        mixed = np.tile(mean_priors, (len(self.paths), 1))
        mixed[readable] = mixture.mix(np.stack(corrected))
        table = predictions_table(self.paths, self.classes, mixed, status).assign(id=self.ids)
        predictions = storage.join(result.run, "predictions.parquet")
        submission_file = storage.join(result.run, "submission.csv")
        storage.write_table(predictions, table)
        submission.write_form(submission_file, self.form, table)
        return replace(
            result,
            data=self.source.root,
            images=len(self.paths),
            unreadable=unreadable(self.paths, status),
            prior=self.prior,
            class_priors=dict(zip(self.classes, mean_priors.tolist(), strict=True)),
            predicted=predicted_counts(table, self.classes),
            predictions=predictions,
            submission=submission_file,
        )


def _of_views(members: Sequence[Run], validated: ValidationPredictions, views: str) -> np.ndarray:
    """The members' validation probabilities float32 (M, N, C), each the mean over the `views` of the images of their
    prepared sets."""
    prepared_sets = [prepared_set_of(member) for member in members]  # all are checked before the first prediction
    probabilities = []
    for member, prepared in zip(members, prepared_sets, strict=True):
        model, info = checkpoint.load_model(member.root)
        flipped = predict_prepared(model, validated.classes, info.config, prepared, "val", views=views)
        rows = {path: row for row, path in enumerate(flipped.paths)}
        probabilities.append(flipped.probabilities[[rows[path] for path in validated.paths]])
    return np.stack(probabilities)


def _folds(member: Run, validated: ValidationPredictions) -> tuple[np.ndarray, CrossFitting]:
    """The cross-fitting fold of each validation image, int64 (N,), and their record for the result. Raises
    UserError for a single image."""
    groups = np.arange(len(validated.labels)) if validated.groups is None else validated.groups
    fold = deal_folds(validated.labels, groups, mixing.FOLDS, seed=0)
    if fold.max() < 1:
        raise UserError(f"{member.root}: one validation image cannot fit an ensemble; prepare more with data.val")
    return fold, CrossFitting(folds=int(fold.max()) + 1, duplicates_together=validated.groups is not None)
