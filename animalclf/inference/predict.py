"""`predict`: class probabilities and a submission for unlabelled images."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from animalclf.errors import UserError
from animalclf.folder_lock import locked
from animalclf.inference import prior_shift, submission
from animalclf.inference.classify import Options, classify
from animalclf.inference.extra_columns import DEFAULT_TABLE, ExtraColumns, TableOptions
from animalclf.inference.prediction_sets import set_sizes
from animalclf.inference.views import check_views
from animalclf.predictions import OK, predicted_counts, predictions_table, unreadable, write_predictions
from animalclf.prepare import sources
from animalclf.rows import PredictionResult
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.utils import storage
from animalclf.utils.console import show_line


def predict(
    run: str,
    data: str,
    out: str,
    *,
    prior: str = "train",
    transport: bool = False,
    sample_submission: str | None = None,
    limit: int = 0,
    columns: TableOptions = DEFAULT_TABLE,
    **options: Any,
) -> PredictionResult:
    """Classify the images of `data` (a file, a folder, or a competition folder's test images) with the best model of
    the run folder `run`.

    Writes the table of predictions (see predictions_table and `columns`) and `submission.csv` into `out`. The id of an
    image is its file name; if several folders hold the same name, its path within `data`. `prior`: see
    prior_shift.parse_prior; `transport`: prior_shift.transport, whose effect is the result's `transported`. `limit`:
    only the first N images, 0 for all. `options`: see classify.Options. An unreadable image has a row, too: the class
    priors as its probabilities, the most frequent class, the reason as its status.

    Raises UserError, before any long work, for what the user can fix.
    """
    started = time.perf_counter()
    # Loaded here and not in the workers: a checkpoint that does not fit is refused before any long work.
    model, info = checkpoint.load_model(run)
    classes, config, settings = info.classes, info.config, Options(**options)
    target_prior = prior_shift.parse_prior(prior, classes, info.prior)
    source = sources.find(data, config.data, labelled=False)
    paths = submission.first_images(source.files["path"], limit)
    ids = submission.image_ids(paths)
    form = submission.form_like(sample_submission, ids, classes)
    check_views(settings.views)
    if transport:
        prior_shift.check_transport(prior)
    folder, out = Run(storage.absolute(run)), storage.absolute(out)
    extra = ExtraColumns(columns, folder, model, info, settings.views, transport)
    if not isinstance(target_prior, str) and (problem := extra.problem_of_sets(target_prior)):
        raise UserError(f"{folder.root}: {problem}")
    with locked(out) as lock:
        for note in [*source.warnings, *filter(None, [form.note, extra.note])] if settings.progress else ():
            show_line(note)
        probabilities, status, scores = classify(
            model, config, source.root, paths, settings, extra.summary, lock.check_held
        )
        readable = np.array([reason == OK for reason in status])
        corrected, priors = prior_shift.apply(probabilities[readable], info.prior, target_prior)
        if settings.progress and (problem := extra.problem_of_sets(priors)):  # of priors that are estimated
            show_line(f"{problem}. All sets have all classes")
        transported = None
        if transport:
            before, corrected = corrected.argmax(1), prior_shift.transport(corrected, priors)
            transported = int((before != corrected.argmax(1)).sum())
        probabilities[readable], probabilities[~readable] = corrected, priors
        table = extra.add(predictions_table(paths, classes, probabilities, status).assign(id=ids), priors, scores)
        predictions = storage.join(out, f"predictions.{columns.format}")
        submission_file = storage.join(out, "submission.csv")
        lock.check_held()
        write_predictions(predictions, table)
        submission.write_form(submission_file, form, table)
    seconds = time.perf_counter() - started
    return PredictionResult(
        run=folder.root,
        data=source.root,
        images=len(paths),
        ignored=source.ignored,
        unreadable=unreadable(paths, status),
        prior=prior,
        views=None if settings.views == "none" else settings.views,
        transported=transported,
        unknown=None if scores is None else int((table["known"] == "no").sum()),
        coverage=columns.sets or None,
        set_sizes=set_sizes(table["set"][readable].tolist()) if columns.sets and readable.any() else None,
        class_priors=dict(zip(classes, priors.tolist(), strict=True)),
        predicted=predicted_counts(table, classes),
        seconds=seconds,
        images_per_s=len(paths) / seconds,
        predictions=predictions,
        submission=submission_file,
    )
