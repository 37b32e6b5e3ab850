"""`compare`: the checks before the start, one preparation and one place in memory for the pictures of all trials, and what came of each.

The run folders are the truth: a resumed comparison runs what they lack.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import ray

from animalclf import cluster
from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data.prepared_set import Prepared
from animalclf.data.ray_loader import ImageCache, cache_images
from animalclf.data.sampler import sampling_plan
from animalclf.errors import UserError
from animalclf.rows import ComparedData, ComparisonSummary
from animalclf.runs import Run
from animalclf.training import checks, mlflow_log
from animalclf.training.progress import open_mailbox
from animalclf.training.resources import Workers, choose_cache, preflight
from animalclf.tuning import comparison_dir
from animalclf.tuning.comparison_dir import Show
from animalclf.tuning.spec import ComparisonSpec, Trial
from animalclf.tuning.trials import ComparisonJob, TrialJob
from animalclf.tuning.tune_run import check_searcher, run_trials
from animalclf.utils import storage
from animalclf.utils.caller import caller
from animalclf.utils.console import console


def compare(
    spec: ComparisonSpec,
    data: str,
    out: str,
    *,
    prepared_at: str = "",
    workers: int = 0,
    cpu: bool = False,
    resume: bool = False,
    max_concurrent: int = 0,
    show: Show = lambda event: None,
) -> ComparisonSummary:
    """Train all trials of `spec` on `data` into the comparison folder `out`, with `workers` Train workers each (0: one), as many at a time as the
    cluster has room for, at most `max_concurrent`. A trial that fails is reported, and the others go on.

    Returns the content of `out`/summary.json. `show` gets the progress of each trial, and its TrialEntry whenever its state changes.

    Raises UserError before any training for what cannot be compared, placed or resumed. Ctrl-C stops the trials; `resume` continues them.
    """
    out, workers = storage.absolute(out), workers or 1
    check_searcher(spec)
    mlflow_log.wanted()
    stored = comparison_dir.open_folder(out, resume)
    claim = Run(out)
    claim.lock()
    try:
        cluster.ensure_ray(workers)
        workers_per_trial = Workers.fixed(workers, not cpu and cluster.at_most().get("GPU", 0) > 0)
        preflight(workers_per_trial, [])  # before the preparation, which may take long
        spec, prepared = _prepared(spec, data, prepared_at or storage.join(os.path.dirname(out), "prepared"))
        compared_data = _same_pictures(spec, prepared, workers)
        comparison_dir.check_same_data(out, stored, compared_data)
        entries = comparison_dir.known_trials(spec, out, stored)
        ended = [trial.slug in entries and entries[trial.slug].state in comparison_dir.ENDED for trial in spec.trials]
        weights = {trial.config.model.weights for trial in spec.trials} - {"none", "imagenet"}
        resources = preflight(workers_per_trial, [out, *(images.root for images in prepared), *weights])
        max_concurrent = concurrency(workers, workers_per_trial.use_gpu, max_concurrent)
        stores, cached = _stores(
            [(trial, images) for trial, images, done in zip(spec.trials, prepared, ended, strict=True) if not done]
        )
        place = f"{workers_per_trial.text} each ({resources}){cached}"
        _print_plan(spec, compared_data, sum(ended), max_concurrent, place, out)
        comparison_dir.write_spec(out, spec, compared_data, stored)
        jobs = _jobs(spec, prepared, stores, ended, storage.join(out, comparison_dir.TRIALS))
        tracker = comparison_dir.TrialTracker(out, compared_data, entries, spec.trials[0].config, show)
        try:
            if spec.searching or not all(job.ended for job in jobs):
                comparison = ComparisonJob(
                    jobs, spec, workers, workers_per_trial.use_gpu, open_mailbox(), caller().text
                )
                run_trials(comparison, tracker, claim, max_concurrent)
        finally:
            tracker.close()
        for url in tracker.new_runs():
            mlflow_log.log_run(Run(url))
        return tracker.summary()
    finally:
        claim.unlock()


def _jobs(
    spec: ComparisonSpec,
    prepared: Sequence[Prepared],
    stores: Mapping[str, ImageCache],
    ended: Sequence[bool],
    folder: str,
) -> tuple[TrialJob, ...]:
    """A job for each trial, below `folder`. Trials that have ended are among them only for a schedule or a searcher, which
    learns from the past and sees them first."""
    jobs = [
        TrialJob(
            trial, folder if spec.searching else storage.join(folder, trial.slug), images, stores.get(images.root), done
        )
        for trial, images, done in zip(spec.trials, prepared, ended, strict=True)
    ]
    if spec.schedule == "none" and not spec.searching:
        jobs = [job for job in jobs if not job.ended]
    return tuple(sorted(jobs, key=lambda job: not job.ended))


def _prepared(spec: ComparisonSpec, data: str, where: str) -> tuple[ComparisonSpec, list[Prepared]]:
    """One prepared set for each different data setting, and the spec with the settings as they are: a set a trial, the same object where they
    share it."""
    weights: dict[tuple[str, str, str], str] = {}
    found: dict[configuration.Data, tuple[Prepared, Config]] = {}
    trials, sets = [], []
    for trial in spec.trials:
        model = trial.config.model
        names = model.name, model.weights, trial.config.train.loss
        if names not in weights:
            weights[names] = checks.resolve_config(trial.config).model.weights
        config = replace(trial.config, model=replace(model, weights=weights[names]))
        if config.data not in found:
            found[config.data] = checks.open_or_prepare(data, config, where, spec.data_keys)
        prepared, settled = found[config.data]
        if prepared.stored_size < config.model.input_size:
            checks.open_or_prepare(data, config, where, spec.data_keys)  # says what is wrong
        trials.append(Trial(trial.name, replace(config, data=settled.data)))
        sets.append(prepared)
    same: dict[str, Prepared] = {}
    return replace(spec, trials=tuple(trials)), [same.setdefault(one.root, one) for one in sets]


def _same_pictures(spec: ComparisonSpec, prepared: Sequence[Prepared], workers: int) -> ComparedData:
    """The images that are compared on. Raises UserError where the trials would not be judged on the same pictures."""
    first, sets = prepared[0], {one.root: one for one in prepared}
    counts = {split: len(first.rows(split)) for split in ("train", "val", "test")}
    monitor = spec.trials[0].config.train.monitor
    if not counts["val"]:
        raise UserError(
            f"train.monitor {monitor} is not reported: {first.root} has no validation split; set data.val, for example data.val=0.2"
        )
    if counts["train"] < workers:
        raise UserError(f"{counts['train']} training pictures for {workers} workers; every worker needs at least one")
    judged = {}
    for trial, one in zip(spec.trials, prepared, strict=True):
        key = (one.root, trial.config.data.limit, trial.config.data.limit and trial.config.seed)
        if key not in judged:
            rows = one.manifest.iloc[sampling_plan(one, trial.config).rows["val"]]
            judged[key] = (one.classes, sorted(zip(rows["path"], rows["label"], strict=True)))
        if judged[key] != next(iter(judged.values())):
            raise UserError(
                f"{spec.trials[0].name} and {trial.name} would be judged on different pictures ({first.root}, {one.root}); prepare them alike"
            )
    columns = [name for name in ("path", "label", "split", "status", "sha256") if name in first.manifest]
    listing = first.manifest[columns].sort_values("path").to_csv(index=False)
    return ComparedData(
        source=str(first.info["source"]),
        classes=len(first.classes),
        **counts,
        listing_hash=hashlib.sha256(listing.encode()).hexdigest(),
        prepared={f"{one.stored_size} px": {"root": one.root, "fingerprint": one.fingerprint} for one in sets.values()},
    )


def _stores(pending: Sequence[tuple[Trial, Prepared]]) -> tuple[dict[str, ImageCache], str]:
    """Where the trials still to run find their pictures: one place for each prepared set, by its root; and that in words."""
    stores: dict[str, ImageCache] = {}
    words, beside = "", 0
    for trial, one in pending:
        if one.root not in stores:
            in_memory, kept = choose_cache(trial.config.train.cache, one, beside)
            beside += one.pixel_bytes if in_memory else 0
            stores[one.root] = cache_images(one, in_memory)
            words += f", {kept}"
    return stores, words


def concurrency(workers: int, use_gpu: bool, asked: int = 0) -> int:
    """How many trials run at a time: on GPUs as many as their workers fit; on CPUs one a worker's node, since a CPU worker uses all cores of its
    node. `asked` lowers that, or on CPUs raises it as far as there are CPUs."""
    have = cluster.at_most()
    cpus, gpus = int(have.get("CPU", 0)), int(have.get("GPU", 0))
    nodes = sum(bool(node["Resources"].get("CPU")) for node in ray.nodes() if node["Alive"])
    most = min(gpus // workers, cpus) if use_gpu else cpus // (workers + 1)
    usual = most if use_gpu else min(nodes // workers, most)
    return max(1, min(asked, most) if asked else usual)


def _print_plan(spec: ComparisonSpec, data: ComparedData, ended: int, at_once: int, place: str, out: str) -> None:
    what = f"{spec.samples if spec.searching else len(spec.trials)} trials" + (
        f", {ended} of them done" if ended else ""
    )
    what += ", stopped early where they fall behind (ASHA)" if spec.schedule == "asha" else ""
    what += ", chosen by Optuna" if spec.searching else ""
    pace = "one at a time" if at_once == 1 else f"{at_once} at a time"
    console.print(
        f"{what}: {data.train:,} training and {data.val:,} validation pictures, {data.classes} classes; {pace} on {place}; comparison folder {out}",
        soft_wrap=True,
    )
