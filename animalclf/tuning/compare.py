"""`compare`: checks before the start, one preparation and one image cache for all trials, and their results.

The run folders are the truth: a resumed comparison runs what they lack.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from typing import Any

import ray

from animalclf import cluster, cluster_size
from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data.prepared_set import Prepared
from animalclf.data.ray_loader import ImageCache, cache_images
from animalclf.data.sampler import sampling_plan
from animalclf.errors import UserError
from animalclf.prepare.problems import show_problems
from animalclf.rows import ComparedData, ComparisonSummary
from animalclf.runs import Run
from animalclf.training import checks, mlflow_log
from animalclf.training.progress import open_mailbox
from animalclf.training.resources import Workers, choose_cache, concurrent_trials, preflight
from animalclf.training.reused_worker import start_worker
from animalclf.training.similar_runs import comparison_expectation
from animalclf.training.stop import end_workers
from animalclf.tuning import comparison_dir
from animalclf.tuning.comparison_dir import Show
from animalclf.tuning.spec import ComparisonSpec, Trial
from animalclf.tuning.spec_checks import check_models
from animalclf.tuning.trials import ComparisonJob, TrialJob
from animalclf.tuning.tune_run import check_searcher, run_trials
from animalclf.utils import storage
from animalclf.utils.caller import caller
from animalclf.utils.console import show_line
from animalclf.utils.registry import check_workers_know
from animalclf.utils.text import count_text


def compare(
    spec: ComparisonSpec,
    data: str,
    out: str,
    *,
    prepared_dir: str = "",
    workers: int = 0,
    cpu: bool = False,
    resume: bool = False,
    max_concurrent: int = 0,
    show: Show = lambda event: None,
) -> ComparisonSummary:
    """Train all trials of `spec` on `data` into the comparison folder `out`, with `workers` training workers each (0:
    one), as many trials at a time as the cluster has room for, at most `max_concurrent`. A failed trial is reported,
    and the others continue.

    Returns the content of `out`/summary.json. `show` is called with the progress of each trial, and with its TrialEntry
    whenever its state changes.

    Raises UserError before any training for what cannot be compared, placed or resumed. Ctrl-C stops the trials;
    `resume` continues them.
    """
    out, workers = storage.absolute(out), workers or 1
    check_searcher(spec)
    for trial in spec.trials:
        check_workers_know(trial.config)
    mlflow_log.enabled()
    stored = comparison_dir.open_folder(out, resume)
    folder = Run(out)
    folder.lock()
    with ExitStack() as stack:
        stack.callback(folder.unlock)
        cluster.ensure_ray(workers)
        trial_workers = Workers.fixed(workers, not cpu and cluster_size.max_resources().get("GPU", 0) > 0)
        preflight(trial_workers, [])  # before the preparation, which may take long
        if not stored:
            check_models(spec.trials, with_files=True)
        spec, prepared = _prepare(spec, data, prepared_dir or storage.join(os.path.dirname(out), "prepared"))
        compared_data = _compared_data(spec, prepared, workers)
        comparison_dir.check_same_data(out, stored, compared_data)
        problems = show_problems(prepared[0])
        entries = comparison_dir.known_trials(spec, out, stored)
        ended = [trial.slug in entries and entries[trial.slug].state in comparison_dir.ENDED for trial in spec.trials]
        max_concurrent = concurrency(workers, trial_workers.use_gpu, max_concurrent)
        one_worker = workers == max_concurrent == 1 and spec.schedule == "none" and not spec.searching
        first_worker = stack.enter_context(_worker(trial_workers)) if one_worker and not all(ended) else None
        pending = [trial for trial, done in zip(spec.trials, ended, strict=True) if not done]
        check_models(pending, len(prepared[0].classes))
        weights = {trial.config.model.weights_file for trial in spec.trials} - {""}
        resources = preflight(trial_workers, [out, *(prepared_set.root for prepared_set in prepared), *weights])
        caches, cache_text = _cache(
            [
                (trial, prepared_set)
                for trial, prepared_set, done in zip(spec.trials, prepared, ended, strict=True)
                if not done
            ]
        )
        placement = f"{trial_workers.text} each ({resources}){cache_text}"
        placement += _expected(spec, prepared, ended, out, trial_workers, max_concurrent)
        _print_plan(spec, prepared[0], sum(ended), max_concurrent, placement, out)
        comparison_dir.write_spec(out, spec, compared_data, stored)
        jobs = _jobs(spec, prepared, caches, ended, storage.join(out, comparison_dir.TRIALS))
        with closing(comparison_dir.TrialTracker(out, compared_data, entries, spec.trials[0].config, show)) as tracker:
            if spec.searching or not all(job.ended for job in jobs):
                settings = workers, trial_workers.use_gpu, open_mailbox(), caller().text, first_worker
                comparison = ComparisonJob(jobs, spec, *settings)
                run_trials(comparison, tracker, folder, max_concurrent)
        for url in tracker.new_runs():
            mlflow_log.log_run(Run(url))
        return replace(tracker.summary(), problems=problems)


@contextmanager
def _worker(workers: Workers) -> Iterator[Any]:
    """A worker for the first trial, which imports what a training needs while this process and Tune start. It ends with
    the block, if not before."""
    worker = start_worker(workers.use_gpu)
    try:
        yield worker
    finally:
        with suppress(ray.exceptions.RayError):
            end_workers(worker)


def _jobs(
    spec: ComparisonSpec,
    prepared: Sequence[Prepared],
    caches: Mapping[str, ImageCache],
    ended: Sequence[bool],
    folder: str,
) -> tuple[TrialJob, ...]:
    """A job for each trial, below `folder`. Jobs of ended trials are included only for a schedule or a searcher, which
    learns from their history and sees them first."""
    jobs = [
        TrialJob(
            trial,
            folder if spec.searching else storage.join(folder, trial.slug),
            prepared_set,
            caches.get(prepared_set.root),
            done,
        )
        for trial, prepared_set, done in zip(spec.trials, prepared, ended, strict=True)
    ]
    if spec.schedule == "none" and not spec.searching:
        jobs = [job for job in jobs if not job.ended]
    return tuple(sorted(jobs, key=lambda job: not job.ended))


def _prepare(spec: ComparisonSpec, data: str, prepared_dir: str) -> tuple[ComparisonSpec, list[Prepared]]:
    """Prepare each different data setting once. Returns the spec with the settings of the prepared sets and absolute
    weights, and the set of each trial: the same object for trials that share it."""
    weights: dict[tuple[str, str, str], str] = {}
    by_settings: dict[configuration.Data, tuple[Prepared, Config]] = {}
    by_root: dict[str, Prepared] = {}
    trials, prepared_sets = [], []
    for trial in spec.trials:
        model = trial.config.model
        names = model.name, model.weights, trial.config.train.loss
        if names not in weights:
            weights[names] = checks.resolve_config(trial.config).model.weights
        config = replace(trial.config, model=replace(model, weights=weights[names]))
        if config.data not in by_settings:
            by_settings[config.data] = checks.open_or_prepare(data, config, prepared_dir, spec.data_keys)
        prepared, prepared_config = by_settings[config.data]
        if prepared.stored_size < config.model.input_size:
            checks.open_or_prepare(data, config, prepared_dir, spec.data_keys)  # raises the error
        trials.append(Trial(trial.name, replace(config, data=prepared_config.data)))
        prepared_sets.append(by_root.setdefault(prepared.root, prepared))
    return replace(spec, trials=tuple(trials)), prepared_sets


def _compared_data(spec: ComparisonSpec, prepared: Sequence[Prepared], workers: int) -> ComparedData:
    """The images that the trials are compared on. Raises UserError if the trials would be validated on different
    images, or not at all."""
    first, by_root = prepared[0], {prepared_set.root: prepared_set for prepared_set in prepared}
    counts = {split: len(first.rows(split)) for split in ("train", "val", "test")}
    monitor = spec.trials[0].config.train.monitor
    folds = spec.trials[0].config.train.folds
    if not counts["val"] and not folds:
        raise UserError(
            f"train.monitor: {monitor} is not computed, because {first.root} has no validation split; set data.val, "
            "for example data.val=0.2"
        )
    if counts["train"] < workers:
        raise UserError(
            f"--workers {workers}: more workers than training images ({counts['train']}); request fewer workers"
        )
    validated = {}
    for trial, prepared_set in zip(spec.trials, prepared, strict=True):
        key = (prepared_set.root, trial.config.data.limit)
        if key not in validated:
            # With folds every training image is validated.
            rows = prepared_set.manifest.iloc[
                sampling_plan(prepared_set, trial.config).rows["train" if folds else "val"]
            ]
            validated[key] = (prepared_set.classes, sorted(zip(rows["path"], rows["label"], strict=True)))
        if validated[key] != next(iter(validated.values())):
            raise UserError(
                f"{spec.trials[0].name} and {trial.name} would be validated on different images ({first.root}, "
                f"{prepared_set.root}); prepare both with this version (--force) and the same data and split settings"
            )
    columns = [name for name in ("path", "label", "split", "status", "sha256") if name in first.manifest]
    listing = first.manifest[columns].sort_values("path").to_csv(index=False)
    return ComparedData(
        source=str(first.info["source"]),
        classes=len(first.classes),
        **counts,
        listing_hash=hashlib.sha256(listing.encode()).hexdigest(),
        prepared={
            f"{prepared_set.stored_size} px": {"root": prepared_set.root, "fingerprint": prepared_set.fingerprint}
            for prepared_set in by_root.values()
        },
    )


def _cache(pending: Sequence[tuple[Trial, Prepared]]) -> tuple[dict[str, ImageCache], str]:
    """An image cache for each prepared set of the pending trials, by its root; and a text for the plan line."""
    caches: dict[str, ImageCache] = {}
    texts, cached_bytes = list[str](), 0
    for trial, prepared in pending:
        if prepared.root not in caches:
            in_memory, cache_text = choose_cache(trial.config.train.cache, prepared, cached_bytes)
            cached_bytes += prepared.pixel_bytes if in_memory else 0
            caches[prepared.root] = cache_images(prepared, in_memory)
            texts.append(cache_text)
    sizes = ", ".join(text.removeprefix("images ") for text in texts)
    several = f"images of {len(texts)} prepared sets: {sizes}"
    return caches, "".join(f", {text}" for text in (texts if len(texts) < 2 else [several]))


def concurrency(workers: int, use_gpu: bool, requested: int = 0) -> int:
    """The number of trials at a time on the connected cluster, see `concurrent_trials`."""
    resources = cluster_size.max_resources()
    nodes = sum(bool(node["Resources"].get("CPU")) for node in ray.nodes() if node["Alive"])
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    return concurrent_trials(cpus, gpus if use_gpu else 0, nodes, workers, requested)


def _expected(
    spec: ComparisonSpec,
    prepared: Sequence[Prepared],
    ended: Sequence[bool],
    out: str,
    workers: Workers,
    max_concurrent: int,
) -> str:
    """For the plan line: how long the trials take, if similar runs are beside them or beside the comparison."""
    if spec.searching:
        return ""
    trials = [
        (Run(storage.join(out, comparison_dir.TRIALS, trial.slug)), trial.config, prepared_set)
        for trial, prepared_set, done in zip(spec.trials, prepared, ended, strict=True)
        if not done
    ]
    known = comparison_expectation(trials, out, str(workers), workers.use_gpu, max_concurrent)
    return f"; {'at most ' if known and spec.schedule == 'asha' else ''}{known.text}" if known else ""


def _print_plan(
    spec: ComparisonSpec, prepared: Prepared, ended: int, max_concurrent: int, placement: str, out: str
) -> None:
    trials = count_text(spec.samples if spec.searching else len(spec.trials), "trial")
    trials += f" ({ended} done)" if ended else ""
    trials += ", proposed by Optuna" if spec.searching else ""
    trials += ", stopped early by ASHA if they fall behind" if spec.schedule == "asha" else ""
    rows = sampling_plan(prepared, spec.trials[0].config).rows
    folds = spec.trials[0].config.train.folds
    train, val = len(rows["train"]), count_text(len(rows["val"]), "validation image")
    counts = f"{count_text(train, 'image')} in {folds} folds" if folds else f"{train:,} training and {val}"
    images = f"{counts}, {len(prepared.classes)} classes"
    pace = "one at a time" if max_concurrent == 1 else f"{max_concurrent} at a time"
    show_line(f"{trials}: {images}; {pace} on {placement}; comparison folder {out}")
