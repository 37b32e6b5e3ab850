"""The Python API: a function for each command, with keyword arguments named as its flags, and `load` for a model in
this process.

A call uses the Ray that this process is connected to and leaves it as it was. If there is none, the first call that
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
from animalclf.utils import arguments, caller

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
PathLike = str | os.PathLike[str]
Settings = Mapping[str, Any]  # dotted configuration key -> value
# The check of each parameter, by its name, or by function and name. None passes unchecked if it is the default.
CHECKS: dict[str, arguments.Check] = {
    **dict.fromkeys(("data", "out", "prepared", "run", "file", "predict", "sample_submission"), arguments.path),
    **dict.fromkeys(("members", "folders"), arguments.paths),
    **dict.fromkeys(("force", "cpu", "resume", "local", "profile", "flips", "reference"), arguments.flag),
    **dict.fromkeys(("limit", "samples", "max_concurrent"), arguments.whole(0)),
    "batch_size": arguments.whole(1),
    "workers": arguments.whole(0),
    "train.workers": arguments.workers,
    "recipes": arguments.recipes,
    "seeds": arguments.seeds,
    "set": arguments.settings('{"train.epochs": 5}'),
    "grid": arguments.settings('{"optim.lr": [1e-3, 3e-3]}'),
    "search": arguments.settings('{"optim.lr": "log:1e-5:1e-2"}'),
    "searcher": arguments.one_of("random", "optuna"),
    "schedule": arguments.one_of("none", "asha"),
    "split": arguments.one_of("train", "val", "test"),
    "method": arguments.some_of("vote", "mean", "weighted"),
    "recipe": arguments.text("the name of a recipe, or the path of a YAML file"),
    "prior": arguments.text('"train", "uniform", "estimate", class priors such as "dog=0.2,cat=0.8", or a file'),
    "device": arguments.text('"auto", "cpu" or "cuda"'),
}
_parameters: dict[str, inspect.Parameter] = {}  # of all functions of the API


def _public(function: Callable[P, T]) -> Callable[P, T]:
    """A function of the API: its arguments are plain values that CHECKS accepts, errors name them, Ray's settings are
    restored, and an interrupt leaves nothing running."""
    signature = inspect.signature(function)
    _parameters.update(signature.parameters)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"animalclf.{function.__name__}(): {error}") from None
        values = {name: arguments.plain(value) for name, value in bound.items()}
        text = f"animalclf.{function.__name__}({', '.join(f'{name}={value!r}' for name, value in values.items())})"
        in_command = caller.is_known()
        with caller.set_caller(text), cluster.restore_settings():
            try:
                for name, value in values.items():
                    if value is not None or signature.parameters[name].default is not None:
                        check = CHECKS.get(f"{function.__name__}.{name}") or CHECKS[name]
                        values[name] = check(name, value)
                return function(**values)  # type: ignore[call-arg]
            except UserError as error:
                if not in_command:
                    error.args = (_in_python(str(error)),)
                raise
            except KeyboardInterrupt:
                cluster.leave_ray()
                raise

    return call


def _in_python(message: str) -> str:
    """`message` with arguments of the API in place of the flags that it names."""
    flags = [name for name, parameter in _parameters.items() if parameter.default is False]
    return arguments.in_python(message, flags, _parameters)


@_public
def prepare(
    data: PathLike,
    out: PathLike,
    *,
    recipe: str = "quick",
    set: Settings | None = None,
    limit: int = 0,
    force: bool = False,
) -> Prepared:
    """Read every image of `data` once: verify, measure, find duplicates, split, and store them decoded and resized in
    `out`.

    `data`: class folders (root/<class>/*.jpg), an unpacked Kaggle competition folder, or a CSV or Parquet table; a
    local path or an s3:// URL. `recipe` decides the size of the stored images. `set`: other values of configuration
    keys, such as {"data.val": 0.25}. `limit`: use only this many images. `force`: replace a set of other images or
    settings; a set that fits is returned as it is.

    Returns the prepared set: `root`, `classes`, `manifest` (a DataFrame, one row per image) and `info`, where "bad"
    lists the unreadable files.
    """
    from animalclf import config as configuration
    from animalclf.prepare import job

    config = configuration.load(recipe, _overrides(set, limit))
    return job.prepare(str(data), str(out), config.data, force=force)


@_public
def train(
    data: PathLike,
    *,
    recipe: str | None = None,
    out: PathLike | None = None,
    prepared: PathLike | None = None,
    set: Settings | None = None,
    limit: int = 0,
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
    keys, such as {"train.epochs": 5}. `limit`: use only this many images. `workers`: training workers (0: one for each
    GPU, or one on CPUs), or "2:8" for an elastic number. `cpu`: train on CPUs although there are GPUs. `resume`:
    continue the run in `out` after its last finished epoch, also after an interrupt. `local`: train in this process,
    without Ray Train. `profile`: write a trace of a few steps.

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
    overrides = _overrides(set, limit) | ({"train.profile": True} if profile else {})
    if resume and not out:
        raise UserError("--resume needs --out: the run folder to continue")
    recipe = recipe or (resume and checks.recipe_of_run(str(out))) or "quick"
    config = configuration.load(recipe, overrides)
    if not resume:  # a stored run may have any name
        checks.check_name(config.name)
    config = checks.resolve_config(config)
    folder = _folder(out, config.name)
    stored_in = str(prepared or storage.join(os.path.dirname(folder), "prepared"))
    images, config = checks.open_or_prepare(str(data), config, stored_in, overrides, number.maximum)
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


@_public
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
    comparison file with these keys; arguments win over it. `out`: the comparison folder (default: runs/compare-<time>).
    `prepared`: where prepared sets are stored (default: next to it). `limit`: use only this many images. `workers`:
    training workers for each trial. `cpu`: train on CPUs although there are GPUs. `max_concurrent`: trials at a time
    (0: as many as the cluster has room for). `resume`: continue the comparison in `out`, or add trials to it.
    `predict`: unlabelled images for which the ensembles write submissions; `prior` and `sample_submission` as for
    `predict`.

    A trial that fails is listed in `.failed` of the result; the others continue. `.problems`: see `train`.
    """
    from dataclasses import replace

    from rich.text import Text

    from animalclf.tuning.compare import compare as run_trials
    from animalclf.tuning.conclusion import check_prediction, conclude
    from animalclf.tuning.live import LiveTable
    from animalclf.tuning.spec import build_spec, comparison_tree
    from animalclf.utils.console import console

    if resume and not out:
        raise UserError("--resume needs --out: the comparison folder to continue")
    described = {"recipes": recipes, "seeds": seeds, "grid": grid, "search": search}
    described |= {"samples": samples, "searcher": searcher, "schedule": schedule}
    spec = build_spec(comparison_tree(str(file or ""), set=_overrides(set, limit), **described))
    folder, to_predict, sample = _folder(out, "compare"), _text(predict), _text(sample_submission)
    check_prediction(to_predict, prior, sample, spec.trials[0].config.data)
    with LiveTable(spec.trials) as live:
        summary = run_trials(
            spec,
            str(data),
            folder,
            prepared_dir=str(prepared or ""),
            workers=workers,
            cpu=cpu,
            resume=resume,
            max_concurrent=max_concurrent,
            show=live.show,
        )
    for trial in summary.trials:
        if trial.state == "failed":
            text = f" {trial.name}, seed {trial.seed}: {trial.reason}"
            console.print(Text.assemble(("failed:", "bold red"), text), soft_wrap=True)
    result = conclude(summary.trials, folder, predict=to_predict, prior=prior, sample_submission=sample)
    return replace(result, problems=summary.problems)


@_public
def evaluate(
    run: PathLike, *, data: PathLike | None = None, split: str = "val", prior: str = "train"
) -> EvaluationResult:
    """Evaluate the best model of the run folder `run`: metrics with 95 % intervals, per class, confusion, calibration.

    `data`: labelled images or a prepared set (default: the run's own prepared set). `split`: which split of a prepared
    set. `prior`: class priors of these images to correct for: "train" (no change), "uniform", "estimate" (from the
    predictions), "dog=0.2,cat=0.8", or a file.
    """
    from animalclf.inference import evaluate as evaluation

    return evaluation.evaluate(str(run), data=_text(data), split=split, prior=prior)


@_public
def predict(
    run: PathLike,
    data: PathLike,
    *,
    out: PathLike | None = None,
    prior: str = "train",
    sample_submission: PathLike | None = None,
    batch_size: int = 64,
    workers: int = 0,
    limit: int = 0,
) -> PredictionResult:
    """Classify the unlabelled images of a folder with Ray Data: write predictions.parquet and submission.csv.

    `data`: a folder of images of any depth, one image, or a Kaggle competition folder (its test images). The id of
    an image is its file name; where several folders hold the same name, its path. `out`: where the files
    go (default: RUN/predictions/<data>). `prior`: see `evaluate`. `sample_submission`: check ids and classes against
    this CSV. `workers`: replicas of the model (0: one for each GPU, or one for each node). `limit`: only the first
    `limit` images. For a few images at hand `load(run).predict(images)` is simpler.
    """
    from animalclf.inference import predict as prediction
    from animalclf.utils import storage

    name = os.path.basename(storage.absolute(str(data)))
    target = out or storage.join(storage.absolute(str(run)), "predictions", name)
    return prediction.predict(
        str(run),
        str(data),
        str(target),
        prior=prior,
        sample_submission=_text(sample_submission),
        limit=limit,
        batch_size=batch_size,
        workers=workers,
    )


@_public
def ensemble(
    members: PathLike | Sequence[PathLike],
    *,
    out: PathLike | None = None,
    method: str | Sequence[str] | None = None,
    data: PathLike | None = None,
    flips: bool = False,
    prior: str = "train",
    sample_submission: PathLike | None = None,
    workers: int = 0,
    limit: int = 0,
) -> EnsemblesResult | VoteResult:
    """Combine several runs, validated on the same images, by each `method` ("vote", "mean", "weighted"; default: all).

    `members` may also be submission .csv files: then the result is their majority vote. `out`: where the ensembles go
    (default: runs/ensemble-<time>). `data`: unlabelled images to predict. `flips`: average over each image and its
    mirror image. `prior`, `sample_submission`, `workers`, `limit`: as for `predict`.
    """
    from animalclf.inference import mixing
    from animalclf.inference.ensemble import ensemble as combine
    from animalclf.inference.vote import vote_submissions
    from animalclf.report.leaderboard import leaderboard
    from animalclf.report.leaderboard_render import write
    from animalclf.rows import EnsemblesResult
    from animalclf.runs import open_run

    folder, names = _folder(out, "ensemble"), list(map(str, members))  # type: ignore[arg-type]
    if all(name.endswith(".csv") for name in names):
        return vote_submissions(names, folder)
    runs = [open_run(name) for name in names]
    ensembles = combine(
        runs,
        folder,
        methods=method or mixing.METHODS,
        data=_text(data),
        flips=flips,
        prior=prior,
        sample_submission=_text(sample_submission),
        workers=workers,
        limit=limit,
    )
    board = leaderboard(runs, ensembles)
    write(board, folder)
    return EnsemblesResult(ensembles=ensembles, leaderboard=board)


@_public
def report(
    folders: PathLike | Sequence[PathLike], *, out: PathLike | None = None, reference: bool = False
) -> ReportResult:
    """Write report.html (one page that opens offline) and its plots: for a run, several runs, or a comparison.

    `out`: where they go (default: into the run or comparison folder; required for several runs). `reference`: show the
    reference results that come with a recipe, even if the data has other classes than the reference.
    """
    from animalclf.tuning.conclusion import report_folders

    return report_folders(list(map(str, folders)), _text(out), reference=reference)  # type: ignore[arg-type]


@_public
def load(run: PathLike, *, device: str = "auto") -> Model:
    """The best model of the run folder `run` in this process, on `device` (auto, cpu or cuda), without Ray."""
    from animalclf.inference.model import Model

    return Model(run, device)


def _overrides(set: Settings | None, limit: int) -> dict[str, object]:
    from animalclf import config as configuration

    return configuration.current_names(set or {}) | ({"data.limit": limit} if limit else {})


def _text(path: PathLike | None) -> str | None:
    return None if path is None else os.fspath(path)


def _folder(out: PathLike | None, name: str) -> str:
    """The absolute `out`, or a new folder for `name` below runs/."""
    from animalclf.utils import storage

    return storage.absolute(str(out) if out else f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}")
