"""From images to a trained model: prepare, train, compare."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from animalclf.api.calls import PathLike, Settings, output_folder, overrides, path_text, public
from animalclf.errors import UserError

if TYPE_CHECKING:
    from animalclf.data.prepared_set import Prepared
    from animalclf.rows import ComparisonResult, ComparisonSummary, TrainingResult
    from animalclf.tuning.spec import ComparisonSpec


@public
def prepare(
    data: PathLike,
    out: PathLike,
    *,
    recipe: str = "quick",
    set: Settings | None = None,
    limit: int = 0,
    corrections: PathLike | None = None,
    force: bool = False,
) -> Prepared:
    """Read every image of `data` once: verify, measure, find duplicates, split, and store them decoded and resized in
    `out`.

    `data`: class folders (root/<class>/*.jpg), an unpacked Kaggle competition folder, or a CSV or Parquet table; a
    local path or an s3:// URL. `recipe` decides the size of the stored images. `set`: other values of configuration
    keys, such as {"data.val": 0.25}. `limit`: use only this many images. `corrections`: a labels.csv of `labels`
    with decisions filled in: labels are changed and images dropped; no file is changed. `force`: replace a set of other
    images or settings; a set that fits is returned as it is.

    Returns the prepared set: `root`, `classes`, `manifest` (a DataFrame, one row per image) and `info`, the content of
    dataset.json, whose "unreadable" lists the unreadable files.
    """
    from animalclf import config as configuration
    from animalclf.prepare import job

    config = configuration.load(recipe, overrides(set, limit, corrections=corrections))
    return job.prepare(str(data), str(out), config.data, force=force)


@public
def train(
    data: PathLike,
    *,
    recipe: str | None = None,
    out: PathLike | None = None,
    prepared: PathLike | None = None,
    set: Settings | None = None,
    limit: int = 0,
    folds: int = 0,
    corrections: PathLike | None = None,
    workers: int | str = 0,
    cpu: bool = False,
    resume: bool = False,
    local: bool = False,
    profile: bool = False,
) -> TrainingResult:
    """Train one recipe and evaluate its best epoch.

    `data`: see `prepare`, or a prepared set. `recipe`: its name, or the path of a YAML file (default: quick, or with
    `resume` the run's own configuration). `out`: the run folder (default: runs/<recipe>-<time>).
    `prepared`: where the prepared set is stored (default: next to the run folder). `set`: other values of configuration
    keys, such as {"train.epochs": 5}. `limit`: use only this many images. `folds`: cross-validate in this many folds of
    the training and validation images: the metrics are out of fold, of all images, and the model is trained on all.
    `corrections`: as for `prepare`. `workers`: training workers (0: one for each GPU, or one on CPUs), or "2:8" for an
    elastic number. `cpu`: train on CPUs although there are GPUs. `resume`: continue the run in `out` after its last
    finished epoch, also after an interrupt. `local`: train in this process, without Ray Train. `profile`: write a trace
    of a few steps.

    Unreadable images, images under two classes and other problems of the data are printed before the first epoch, and
    listed in `.problems` of the result.
    """
    from dataclasses import replace

    from animalclf import config as configuration
    from animalclf.prepare.problems import show_problems
    from animalclf.rows import StartupEvent
    from animalclf.training import checks, launch, mlflow_log
    from animalclf.training.display import TrainingDisplay
    from animalclf.training.resources import Workers
    from animalclf.utils import storage

    mlflow_log.enabled()
    number = Workers.parse(str(workers))
    settings = overrides(set, limit, folds, corrections) | ({"train.profile": True} if profile else {})
    if resume and not out:
        raise UserError("--resume needs --out: the run folder to continue")
    recipe = recipe or (resume and checks.recipe_of_run(str(out))) or "quick"
    config = configuration.load(recipe, settings)
    if not resume:  # a stored run may have any name
        checks.check_name(config.name)
    folder = output_folder(out, config.name)
    checks.check_run_folder(folder, resume)
    config = checks.resolve_config(config)
    stored_in = str(prepared or storage.join(os.path.dirname(folder), "prepared"))
    images, config = checks.open_or_prepare(str(data), config, stored_in, settings, number.maximum)
    run = checks.lock_run(folder, config, resume)
    try:
        with TrainingDisplay(config.train.epochs) as display:
            display.show(StartupEvent("images"))
            problems = show_problems(images)
            result = launch.start_training(config, images, run, number, cpu, local, display.show)
    finally:
        run.unlock()
    mlflow_log.log_run(run)
    return replace(result, startup=display.startup(), problems=problems)


@public
def compare(
    data: PathLike,
    *,
    recipes: Sequence[PathLike | Mapping[str, Any]] | None = None,
    seeds: int | Sequence[int] | None = None,
    set: Settings | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    search: Mapping[str, Any] | None = None,
    samples: int = 0,
    searcher: str | None = None,
    schedule: str | None = None,
    file: PathLike | None = None,
    out: PathLike | None = None,
    prepared: PathLike | None = None,
    limit: int = 0,
    folds: int = 0,
    workers: int = 0,
    cpu: bool = False,
    max_concurrent: int = 0,
    resume: bool = False,
    predict: PathLike | None = None,
    prior: str = "train",
    sample_submission: PathLike | None = None,
) -> ComparisonResult:
    """Train several recipes, seeds or settings on the same images; end with a leaderboard, ensembles and a report.

    `recipes`: names, or mappings {"recipe": ..., "name": ..., "set": {...}}. `seeds`: how many (default 1), or a list.
    `set`: values of configuration keys for all recipes. `grid`: every combination of these values, such as
    {"optim.lr": [1e-3, 3e-3]}. `search`: ranges to draw `samples` from, such as {"optim.lr": "log:1e-5:1e-2"}, or
    lists; `searcher`: "random" or "optuna". `schedule`: "asha" stops trials of one recipe that fall behind. `file`: a
    comparison file with these keys; arguments override it. `out`: the comparison folder (default: runs/compare-<time>).
    `prepared`: where prepared sets are stored (default: next to it). `limit`: use only this many images. `folds`: as
    for `train`. `workers`: training workers for each trial. `cpu`: train on CPUs although there are GPUs.
    `max_concurrent`: trials at a time (0: as many as the cluster has room for). `resume`: continue the comparison in
    `out`, or add trials to it. `predict`: unlabelled images for which the ensembles write submissions; `prior` and
    `sample_submission` as for `predict`.

    A trial that fails is listed in `.failed` of the result; the others continue. `.problems`: see `train`.
    """
    from dataclasses import replace

    from animalclf.tuning.comparison_dir import open_folder
    from animalclf.tuning.conclusion import check_prediction, conclude
    from animalclf.tuning.spec_parsing import build_spec, comparison_tree

    if resume and not out:
        raise UserError("--resume needs --out: the comparison folder to continue")
    described = {"recipes": recipes, "seeds": seeds, "grid": grid, "search": search}
    described |= {"samples": samples, "searcher": searcher, "schedule": schedule}
    spec = build_spec(comparison_tree(str(file or ""), set=overrides(set, limit, folds), **described))
    folder, to_predict, sample = output_folder(out, "compare"), path_text(predict), path_text(sample_submission)
    open_folder(folder, resume)  # checks it before the images to predict are listed
    check_prediction(to_predict, prior, sample, spec.trials[0].config.data)
    options = {"workers": workers, "cpu": cpu, "resume": resume, "max_concurrent": max_concurrent}
    summary = _run_trials(spec, str(data), folder, prepared_dir=str(prepared or ""), **options)
    result = conclude(summary.trials, folder, predict=to_predict, prior=prior, sample_submission=sample)
    return replace(result, problems=summary.problems)


def _run_trials(spec: ComparisonSpec, data: str, folder: str, **options: Any) -> ComparisonSummary:
    """Run the trials with a live table, and print the reason for each that failed."""
    from animalclf.tuning.compare import compare as run_trials
    from animalclf.tuning.live import LiveTable
    from animalclf.utils.console import show_error

    with LiveTable(spec.trials) as live:
        summary = run_trials(spec, data, folder, show=live.show, **options)
    for trial in summary.trials:
        if trial.state == "failed":
            show_error(f"{trial.name}, seed {trial.seed}: {trial.reason}", label="failed:")
    return summary
