"""Several finished runs as one model: calibrated, mixed, evaluated on validation like a model, and used for a submission."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from animalclf import config as configuration
from animalclf.errors import UserError
from animalclf.inference import mixing, submission
from animalclf.inference import prior_shift as priors
from animalclf.inference.evaluate import on_prepared, own_prepared
from animalclf.inference.members import Validated, side_by_side
from animalclf.metrics import classification
from animalclf.prepare import sources
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
) -> list[dict[str, Any]]:
    """Mix finished runs, by each of `methods`, into a folder `out`/<method> with result.json and predictions/val.parquet, as a run has them.

    "vote": the class that most members name; ties go to the best member, by balanced accuracy, that voted for one of the tied classes. "mean": the
    mean of the members' probabilities. "weighted": their mean with the weights that fit validation best. Every member is first calibrated by a
    temperature, and so is the mixture at last. Temperatures, weights and the ranking are fitted on the validation pictures, so the figures are
    cross-fitted: each of mixing.FOLDS folds (copies of a picture lie in one fold, where the prepared set is still there) is judged with what was
    fitted on the others. Prediction uses what was fitted on all. `flips`: each member gives the mean over the picture and its mirror image.

    With `data`, unlabelled pictures, predictions.parquet and submission.csv are written beside result.json. Each member predicts once, into
    `out`/members, and not again while its checkpoint and the pictures stay. Members are corrected for `prior` (see prior.parse_prior), each for the
    shares it was trained under, after calibration and before they are mixed. `options`: see predict (limit, workers, batch_size, device, progress).

    Returns one dictionary a method: name, method, members, temperatures, last_temperature, weights, best, flips, val (what
    metrics.from_probabilities gives), run (the folder's URL), and with `data` what predict returns. Raises UserError, before any long work, for fewer
    than two members, an unfinished run, runs that were not validated on the same pictures with the same classes, an unknown method, and whatever
    predict refuses.
    """
    unknown = [method for method in methods if method not in mixing.METHODS]
    if unknown or not methods:
        raise UserError(f"method {', '.join(unknown) or 'missing'}: choose among {', '.join(mixing.METHODS)}")
    if len(members) < 2:
        raise UserError("an ensemble needs at least two runs; name two or more run folders")
    together = side_by_side(members)
    out = storage.absolute(out)
    job = _Prediction(members, together.classes, data, prior, sample_submission, options) if data else None
    chances = _with_flips(members, together) if flips else together.chances
    groups, grouped = _groups(members[0], together.paths)
    fold = mixing.folds(together.labels, groups)
    if fold.max() < 1:
        raise UserError(f"{members[0].root}: one validation picture is too little to fit an ensemble on; prepare more with data.val")
    tables = job.tables(storage.join(out, "members"), flips) if job else []
    made = []
    for method in dict.fromkeys(methods):
        mixture = mixing.fit(method, chances, together.labels)
        mixed = mixing.cross_fitted(method, chances, together.labels, fold)
        run = Run(storage.join(out, method))
        found: dict[str, Any] = {
            "name": f"ensemble {method}{' with flips' if flips else ''}",
            "kind": "ensemble",
            "method": method,
            "members": [member.root for member in members],
            "best": members[mixture.ranking[0]].root,
            "temperatures": mixture.temperatures.tolist(),
            "last_temperature": mixture.last,
            "weights": mixture.weights.tolist(),
            "flips": flips,
            "cross_fitted": {"folds": int(fold.max()) + 1, "copies_together": grouped},
            "classes": together.classes,
            "val": classification.from_probabilities(mixed, together.labels, together.classes),
            "run": run.root,
        }
        found |= {name: found["val"][name] for name in ("accuracy", "balanced_accuracy", "macro_f1", "loss")}  # as a training's result has them
        labels = [together.classes[label] for label in together.labels]
        run.write_predictions("val", submission.predictions_table(together.paths, together.classes, mixed, [submission.OK] * len(labels), labels))
        if job:
            found |= job.write(run.root, tables, mixture)
        run.write_result(found)
        made.append(found)
    return made


class _Prediction:
    """The unlabelled pictures of an ensemble. Made before any long work: raises UserError for what the user can mend."""

    def __init__(
        self, members: Sequence[Run], classes: Sequence[str], data: str, prior: str, sample_submission: str | None, options: dict[str, Any]
    ) -> None:
        self.members, self.classes, self.data, self.prior, self.options = members, classes, data, prior, options
        self.sample = sample_submission
        self.columns: Sequence[str] = submission.COLUMNS
        self.trained = [checkpoint.load(member.checkpoint("best"))["prior"] for member in members]
        self.wanted = [priors.parse_prior(prior, classes, shares) for shares in self.trained]
        self.source = sources.find(data, members[0].config().data, labelled=False)
        self.paths = list(self.source.files["path"])[: options.get("limit") or None]
        self.ids = submission.ids_of(self.paths)
        if sample_submission:
            sample = submission.read(sample_submission)
            submission.same_ids(self.ids, sample.iloc[:, 0], sample_submission)
            self.columns = list(sample.columns)

    def tables(self, folder: str, flips: bool) -> list[pd.DataFrame]:
        """Each member's predictions under its own training prior, kept in `folder` and used again while they fit."""
        found = []
        for member in self.members:
            mine = storage.join(folder, f"{member.root.rsplit('/', 1)[-1]}-{hashlib.sha256(member.root.encode()).hexdigest()[:8]}")
            table = self._table(member, mine, flips)
            if table["path"].tolist() != self.paths:
                raise UserError(f"{self.data}: its pictures changed while they were predicted; run the same command again")
            found.append(table)
        return found

    def _table(self, member: Run, folder: str, flips: bool) -> pd.DataFrame:
        from animalclf.inference.predict import predict

        made_of = {
            "checkpoint": hashlib.sha256(storage.read_bytes(member.checkpoint("best"))).hexdigest(),
            "pictures": sources.inputs_hash(self.source, member.config().data),
            "limit": self.options.get("limit", 0),
            "flips": flips,
        }
        note, table = storage.join(folder, "made_of.json"), storage.join(folder, "predictions.parquet")
        if not (storage.exists(note) and storage.read_json(note) == made_of and storage.exists(table)):
            storage.remove(note)  # first, so that it never vouches for another prediction's table
            predict(member.root, self.data, folder, flips=flips, **self.options)
            storage.write_json(note, made_of)
        return storage.as_table(storage.read_bytes(table))

    def write(self, folder: str, tables: Sequence[pd.DataFrame], mixture: mixing.Mixture) -> dict[str, Any]:
        """Mix the members' tables and write predictions.parquet and submission.csv. A picture that a member could not read gets the prior."""
        states = np.stack([table["status"].to_numpy(object) for table in tables])
        readable = (states == submission.OK).all(0)
        status = [next((state for state in column if state != submission.OK), submission.OK) for column in states.T]
        chances = mixture.calibrate(np.stack([table[[f"p_{name}" for name in self.classes]].to_numpy() for table in tables])[:, readable])
        corrected = [priors.apply(mine, trained, wanted) for mine, trained, wanted in zip(chances, self.trained, self.wanted, strict=True)]
        shares = np.mean([target for _, target in corrected], axis=0)
        mixed = np.tile(shares, (len(self.paths), 1))
        mixed[readable] = mixture.mix(np.stack([mine for mine, _ in corrected]))
        table = submission.predictions_table(self.paths, self.classes, mixed, status)
        targets = {"predictions": storage.join(folder, "predictions.parquet"), "submission": storage.join(folder, "submission.csv")}
        storage.write_table(targets["predictions"], table)
        submission.write(targets["submission"], self.ids, table["predicted"].tolist(), self.columns)
        if self.sample:
            submission.check(targets["submission"], self.sample, self.classes)
        return {
            "data": self.source.root,
            "pictures": len(self.paths),
            "unreadable": submission.unreadable(self.paths, status),
            "prior": self.prior,
            "prior_shares": dict(zip(self.classes, shares.tolist(), strict=True)),
            "predicted": {name: int((table["predicted"] == name).sum()) for name in self.classes},
            **targets,
        }


def _with_flips(members: Sequence[Run], together: Validated) -> np.ndarray:
    """The members' validation probabilities float32 (M, N, C), each the mean over the picture and its mirror image, from their prepared sets."""
    prepared = [own_prepared(member) for member in members]  # all, before the first works
    found = []
    for member, pictures in zip(members, prepared, strict=True):
        model, about = checkpoint.load_model(member.root)
        done = on_prepared(model, together.classes, configuration.from_dict(about["config"]), pictures, "val", flips=True)
        place = {path: row for row, path in enumerate(done.paths)}
        found.append(done.probabilities[[place[path] for path in together.paths]])
    return np.stack(found)


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
