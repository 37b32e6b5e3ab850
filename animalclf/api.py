"""The Python API: one function a command, with keyword arguments named as its flags, and `load` for a model in this process.

A call uses the Ray that this process is connected to and leaves it as it was. Where there is none, the first call that
needs Ray joins the cluster that RAY_ADDRESS names or starts a small one on this machine, which later calls use again;
it ends with the process, at `leave_ray()`, or when a call is interrupted. Raises UserError for whatever the caller can
fix, before any long work.
"""

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from animalclf import cluster
from animalclf.cluster import leave_ray
from animalclf.errors import UserError
from animalclf.utils import caller

if TYPE_CHECKING:
    from animalclf.data.prepared_set import Prepared
    from animalclf.inference.model import Model
    from animalclf.rows import (
        ComparisonResult,
        EnsemblesResult,
        EvaluationResult,
        PredictionResult,
        ReportResult,
        TrainingResult,
        VoteResult,
    )

__all__ = ["UserError", "compare", "ensemble", "evaluate", "leave_ray", "load", "predict", "prepare", "report", "train"]

P = ParamSpec("P")
T = TypeVar("T")
Overrides = Mapping[str, Any]  # dotted configuration key -> value


def _public(function: Callable[P, T]) -> Callable[P, T]:
    """A function of the API: paths may be os.PathLike; afterwards Ray's settings are as before, and nothing runs on after an interrupt."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        bound = inspect.signature(function).bind(*args, **kwargs)
        given = {name: _plain(value) for name, value in bound.arguments.items()}
        text = f"animalclf.{function.__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"
        with caller.called(text), cluster.settings_restored():
            try:
                return function(**given)  # type: ignore[call-arg]
            except KeyboardInterrupt:
                cluster.leave_ray()
                raise

    return call


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


@_public
def prepare(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    recipe: str = "big_cnn",
    set: Overrides | None = None,
    limit: int = 0,
    force: bool = False,
) -> Prepared:
    """Read every image of `data` once: verify, measure, find duplicates, split, and store them decoded and resized in `out`.

    `data`: class folders (root/<class>/*.jpg), an unpacked Kaggle competition folder, or a CSV or Parquet table; a
    local path or an s3:// URL. `recipe` decides the size of the stored images. `set`: other values of configuration
    keys, such as {"data.val": 0.25}. `limit`: use only so many images. `force`: replace a set of other images or
    settings; one that fits is returned as it is.

    Returns the prepared set: `root`, `classes`, `manifest` (a DataFrame, one row an image) and `info`, where "bad"
    lists the unreadable files.
    """
    from animalclf import config as configuration
    from animalclf.prepare import job

    config = configuration.load(recipe, _overrides(set, limit))
    return job.prepare(str(data), str(out), config.data, force=force)


@_public
def train(
    data: str | os.PathLike[str],
    *,
    recipe: str = "big_cnn",
    out: str | os.PathLike[str] | None = None,
    prepared: str | os.PathLike[str] | None = None,
    set: Overrides | None = None,
    limit: int = 0,
    workers: int | str = 0,
    cpu: bool = False,
    resume: bool = False,
    local: bool = False,
    profile: bool = False,
) -> TrainingResult:
    """Train one recipe and evaluate its best epoch.

    `data`: see `prepare`, or a prepared set. `recipe`: its name, or the path of a YAML file. `out`: the run folder
    (default: runs/<recipe>-<time>). `prepared`: where the prepared set is stored (default: beside the run folder).
    `set`: other values of configuration keys, such as {"train.epochs": 5}. `limit`: use only so many images.
    `workers`: training workers (0: one a GPU, or one on CPUs), or "2:8" for as many as there are. `cpu`: train on CPUs
    although there are GPUs. `resume`: continue the run in `out` after its last finished epoch, also after an
    interrupt. `local`: train in this process, without Ray Train. `profile`: write a trace of a few steps.
    """
    from dataclasses import replace

    from animalclf import config as configuration
    from animalclf.rows import StartupEvent
    from animalclf.training import checks, launch, mlflow_log
    from animalclf.training.display import TrainingDisplay
    from animalclf.training.resources import Workers
    from animalclf.utils import storage

    mlflow_log.enabled()
    wanted = Workers.parse(str(workers))
    overrides = _overrides(set, limit) | ({"train.profile": True} if profile else {})
    config = checks.resolve_config(configuration.load(recipe, overrides))
    if resume and not out:
        raise UserError("--resume needs --out: the run folder to continue")
    folder = _folder(out, config.name)
    where = prepared or storage.join(os.path.dirname(folder), "prepared")
    images, config = checks.open_or_prepare(str(data), config, str(where), overrides, wanted.maximum)
    run = checks.lock_run(folder, config, resume)
    try:
        with TrainingDisplay(config.train.epochs) as display:
            display.show(StartupEvent("images"))
            result = launch.start_training(config, images, run, wanted, cpu, local, display.show)
    finally:
        run.unlock()
    mlflow_log.log_run(run)
    return replace(result, startup=display.startup())


@_public
def compare(
    data: str | os.PathLike[str],
    *,
    recipes: Sequence[str | Mapping[str, Any]] = (),
    seeds: int | Sequence[int] | str = 0,
    set: Overrides | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    search: Mapping[str, Any] | None = None,
    samples: int = 0,
    searcher: str = "",
    schedule: str = "",
    file: str | os.PathLike[str] = "",
    out: str | os.PathLike[str] | None = None,
    prepared: str | os.PathLike[str] = "",
    limit: int = 0,
    workers: int = 0,
    cpu: bool = False,
    max_concurrent: int = 0,
    resume: bool = False,
    predict: str | os.PathLike[str] | None = None,
    prior: str = "train",
    sample_submission: str | None = None,
) -> ComparisonResult:
    """Train several recipes, seeds or settings on the same images; end with a leaderboard, ensembles and a report.

    `recipes`: names, or mappings {"recipe": ..., "name": ..., "set": {...}}. `seeds`: how many (default 1), or a list.
    `set`: values of configuration keys for all recipes. `grid`: every combination of these values, such as
    {"optim.lr": [1e-3, 3e-3]}. `search`: ranges to draw `samples` from, such as {"optim.lr": "log:1e-5:1e-2"}, or
    lists; `searcher` "random" or "optuna". `schedule`: "asha" stops trials of one recipe that fall behind. `file`: a
    comparison file with these keys; arguments win over it. `out`: the comparison folder (default: runs/compare-<time>).
    `prepared`: where prepared sets are stored (default: beside it). `limit`: use only so many images. `workers`:
    training workers a trial. `cpu`: train on CPUs although there are GPUs. `max_concurrent`: trials at a time (0: as
    many as the cluster has room for). `resume`: continue the comparison in `out`, or add trials to it. `predict`:
    unlabelled images for which the ensembles write submissions; `prior` and `sample_submission` as for `predict`.

    A trial that fails is listed in `.failed` of the result, and the others go on.
    """
    from rich.text import Text

    from animalclf.tuning.compare import compare as run_trials
    from animalclf.tuning.conclusion import conclude
    from animalclf.tuning.live import LiveTable
    from animalclf.tuning.spec import build_spec, comparison_tree
    from animalclf.utils.console import console

    if resume and not out:
        raise UserError("--resume needs --out: the comparison folder to continue")
    described = {"recipes": recipes, "seeds": seeds, "grid": grid, "search": search}
    described |= {"samples": samples, "searcher": searcher, "schedule": schedule}
    spec = build_spec(comparison_tree(str(file), set=_overrides(set, limit), **described))
    folder = _folder(out, "compare")
    with LiveTable(spec.trials) as live:
        flags: dict[str, Any] = {"workers": workers, "cpu": cpu, "resume": resume, "max_concurrent": max_concurrent}
        summary = run_trials(spec, str(data), folder, prepared_dir=str(prepared), show=live.show, **flags)
    for trial in summary.trials:
        if trial.state == "failed":
            text = f" {trial.name}, seed {trial.seed}: {trial.reason}"
            console.print(Text.assemble(("failed:", "bold red"), text), soft_wrap=True)
    return conclude(
        summary.trials,
        folder,
        predict=str(predict) if predict else None,
        prior=prior,
        sample_submission=sample_submission,
    )


@_public
def evaluate(
    run: str | os.PathLike[str], *, data: str | os.PathLike[str] | None = None, split: str = "val", prior: str = "train"
) -> EvaluationResult:
    """Evaluate the best model of the run folder `run`: metrics with 95 % intervals, per class, confusion, calibration.

    `data`: labelled images or a prepared set (default: the run's own prepared set). `split`: which split of a prepared
    set. `prior`: class priors of these images to correct for: "train" (no change), "uniform", "estimate" (from the
    predictions), "cane=0.2,gatto=0.8", or a file.
    """
    from animalclf.inference import evaluate as evaluation

    return evaluation.evaluate(str(run), data=str(data) if data else None, split=split, prior=prior)


@_public
def predict(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    prior: str = "train",
    sample_submission: str | None = None,
    batch_size: int = 64,
    workers: int = 0,
    limit: int = 0,
) -> PredictionResult:
    """Classify the unlabelled images of a folder with Ray Data: write predictions.parquet and submission.csv.

    `data`: a folder of images of any depth, or a Kaggle competition folder (its test images). `out`: where the files
    go (default: RUN/predictions/<data>). `prior`: see `evaluate`. `sample_submission`: check ids and classes against
    this CSV. `workers`: replicas of the model (0: one a GPU, or one a node). `limit`: only the first so many images.
    For a few images at hand `load(run).predict(images)` is simpler.
    """
    from animalclf.inference import predict as prediction
    from animalclf.utils import storage

    name = os.path.basename(storage.absolute(str(data)))
    target = out or storage.join(storage.absolute(str(run)), "predictions", name)
    options = {"batch_size": batch_size, "workers": workers}
    return prediction.predict(
        str(run), str(data), str(target), prior=prior, sample_submission=sample_submission, limit=limit, **options
    )


@_public
def ensemble(
    members: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    method: Sequence[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    flips: bool = False,
    prior: str = "train",
    sample_submission: str | None = None,
    workers: int = 0,
    limit: int = 0,
) -> EnsemblesResult | VoteResult:
    """Join several runs, validated on the same images, by each `method` ("vote", "mean", "weighted"; default: all).

    `members` may also be submission .csv files: then the result is their majority vote. `out`: where the ensembles go
    (default: runs/ensemble-<time>). `data`: unlabelled images to predict. `flips`: average over each image and its
    mirror image. `prior`, `sample_submission`, `workers`, `limit`: as for `predict`.
    """
    from animalclf.inference import mixing
    from animalclf.inference.ensemble import ensemble as join
    from animalclf.inference.vote import vote_submissions
    from animalclf.report.leaderboard import leaderboard
    from animalclf.report.leaderboard_render import write
    from animalclf.rows import EnsemblesResult
    from animalclf.runs import open_run

    folder, names = _folder(out, "ensemble"), [str(member) for member in members]
    if names and all(name.endswith(".csv") for name in names):
        return vote_submissions(names, folder)
    runs = [open_run(name) for name in names]
    options: dict[str, Any] = {"data": str(data), "workers": workers, "limit": limit} if data else {}
    methods = [method] if isinstance(method, str) else method or mixing.METHODS
    ensembles = join(
        runs, folder, methods=methods, flips=flips, prior=prior, sample_submission=sample_submission, **options
    )
    board = leaderboard(runs, ensembles)
    write(board, folder)
    return EnsemblesResult(ensembles=ensembles, leaderboard=board)


@_public
def report(
    folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    reference: bool = False,
) -> ReportResult:
    """Write report.html (one page that opens offline) and its plots: of a run, of several runs, or of a comparison.

    `out`: where they go (default: into the run or comparison folder; needed for several runs). `reference`: show the
    reference results that come with a recipe, also where the data has other classes than the reference.
    """
    from animalclf.tuning.conclusion import report_folders

    names = [folders] if isinstance(folders, str) else [str(folder) for folder in folders]  # type: ignore[union-attr]
    return report_folders(names, str(out) if out else None, reference=reference)


def load(run: str | os.PathLike[str], *, device: str = "auto") -> Model:
    """The best model of the run folder `run` in this process, on `device` (auto, cpu or cuda), without Ray."""
    from animalclf.inference.model import Model

    return Model(run, device)


def _overrides(set: Overrides | None, limit: int) -> dict[str, Any]:
    return dict(set or {}) | ({"data.limit": limit} if limit else {})


def _folder(out: str | os.PathLike[str] | None, name: str) -> str:
    """The absolute `out`, or a new folder for `name` below runs/."""
    from animalclf.utils import storage

    return storage.absolute(str(out) if out else f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}")
