"""The conclusion of a comparison: leaderboard, ensembles with their submissions, report."""

from __future__ import annotations

from collections.abc import Sequence

from animalclf.config import Data
from animalclf.errors import UserError
from animalclf.inference import prior_shift, submission
from animalclf.inference.ensemble import ensemble
from animalclf.metrics import PRIMARY
from animalclf.prepare import sources
from animalclf.report.leaderboard import leaderboard
from animalclf.report.leaderboard_render import write
from animalclf.report.page import write_report
from animalclf.rows import ComparisonResult, ReportResult, TrialEntry
from animalclf.runs import Run, open_run
from animalclf.tuning.comparison_dir import ENSEMBLES, read_comparison
from animalclf.utils import storage


def conclude(
    trials: Sequence[TrialEntry],
    out: str,
    *,
    predict: str | None = None,
    prior: str = "train",
    sample_submission: str | None = None,
) -> ComparisonResult:
    """Rank the finished trials of the comparison folder `out`, combine the best runs in ensembles, and write
    leaderboard and report into the folder. The ensembles predict the unlabelled images `predict`, corrected for
    `prior`.

    Raises UserError if no trial finished, and what `ensemble` raises.
    """
    finished = [Run(trial.run) for trial in trials if trial.state == "finished"]
    if not finished:
        raise UserError(
            f"no trial finished, so there is nothing to compare; {out}/summary.json has the reason for each trial"
        )
    failed = [trial for trial in trials if trial.state == "failed"]
    members = best_of_each(finished)
    ensembles = []
    if len(members) > 1:
        folder = storage.join(out, ENSEMBLES)
        ensembles = ensemble(members, folder, data=predict, prior=prior, sample_submission=sample_submission)
    board = leaderboard(finished, ensembles)
    write(board, out)
    page = write_report(finished, out, title="Comparison", board=board, ensembles=ensembles, failed=failed)
    return ComparisonResult(
        comparison=out, leaderboard=board, ensembles=ensembles, trials=list(trials), report=page.report
    )


def check_prediction(images: str | None, prior: str, sample_submission: str | None, config: Data) -> None:
    """Raise UserError, before any training, if `conclude` could not predict the unlabelled `images`: missing images, a
    wrong prior, a sample submission with other ids."""
    prior_shift.check_syntax(prior)
    if images:
        source = sources.find(images, config, labelled=False)
        submission.form_like(sample_submission, submission.image_ids(source.files["path"]))


def best_of_each(finished: Sequence[Run]) -> list[Run]:
    """The members of an ensemble: the best run of each recipe by validation, or all runs if there is one recipe."""
    by_name: dict[str, list[Run]] = {}
    for run in finished:
        by_name.setdefault(run.config().name, []).append(run)
    if len(by_name) == 1:
        return list(finished)
    return [max(runs, key=lambda run: run.result().metrics[PRIMARY]) for runs in by_name.values()]


def report_folders(folders: Sequence[str], out: str | None = None, *, reference: bool = False) -> ReportResult:
    """Write the report of one comparison folder, or of run folders, finished or not, into `out` (default: the folder).
    `reference`: show the reference results of the recipes for any classes.

    Raises UserError for a folder that is no run, several runs without `out`, a comparison without a finished trial or
    without the folder of one, and finished runs that were validated on different images.
    """
    if not folders:
        raise UserError("nothing to report: name a run folder, several, or a comparison folder")
    if len(folders) > 1 and not out:
        raise UserError("--out: name a folder for the report of several runs")
    comparison = read_comparison(folders[0]) if len(folders) == 1 else None
    if comparison:
        runs = [Run(trial.run) for trial in comparison.trials if trial.state == "finished"]
        if not runs:
            raise UserError(f"{folders[0]}: no trial of this comparison has finished; continue it with --resume")
        if missing := [run.root for run in runs if not run.exists()]:
            raise UserError(
                f"{missing[0]}: the run folder of a finished trial is missing; restore it, or train the trial again "
                "with the same compare command and --resume"
            )
    else:
        runs = [open_run(folder) for folder in folders]
    ensembles = comparison.ensembles if comparison else []
    failed = [trial for trial in comparison.trials if trial.state == "failed"] if comparison else []
    finished = [run for run in runs if run.finished()]
    # Runs without validation cannot be ranked. If only some have it, `leaderboard` raises an error about the others.
    board = leaderboard(finished, ensembles) if any(run.result().val for run in finished) else None
    title = runs[0].config().name if len(runs) == 1 else "Comparison"
    return write_report(
        runs,
        storage.absolute(out or folders[0]),
        title=title,
        board=board,
        ensembles=ensembles,
        failed=failed,
        reference=reference,
    )
