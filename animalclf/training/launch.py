"""The start of a training: place it, record it in the run folder, print the plan, train on Ray or in this process."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from animalclf.config import Config
from animalclf.data.prepared_set import Prepared
from animalclf.data.sampler import sampling_plan
from animalclf.errors import UserError
from animalclf.raycompat.patches import OWN_RAY_VARIABLE
from animalclf.rows import ProgressEvent, StartupEvent, TrainingResult
from animalclf.runs import Run
from animalclf.training.checks import config_changes
from animalclf.training.progress import Report
from animalclf.training.resources import Workers, choose_cache, input_cpus, preflight
from animalclf.training.similar_runs import expectation
from animalclf.training.task import Start
from animalclf.utils import storage
from animalclf.utils.console import show_line
from animalclf.utils.registry import check_workers_know
from animalclf.utils.text import count_text

if TYPE_CHECKING:
    from animalclf.data.loader import Loader
    from animalclf.data.sampler import Phase, SamplingPlan
    from animalclf.models.classifier import Classifier


@dataclass(frozen=True)
class Placement:
    """Where a training runs."""

    workers: Workers
    cache_in_memory: bool
    """Whether the images are cached in Ray's object store; else on the nodes' disks."""
    text: str
    """For the plan line: `on 2 GPU workers (1 node, 8 CPUs, 2 GPUs), images 1.2 GB in memory`."""


def start_training(
    config: Config, prepared: Prepared, run: Run, workers: Workers, cpu: bool, local: bool, report: Report
) -> TrainingResult:
    """Train in this process (`local`) or on Ray. Returns the content of result.json.

    Raises UserError for more workers than training images, a model that cannot be built, and workers or images that
    the cluster has no room for.
    """
    images = len(sampling_plan(prepared, config).rows["train"])
    images -= images // config.train.folds if config.train.folds else 0
    if images < workers.maximum:
        raise UserError(f"--workers {workers}: more workers than training images ({images}); request fewer workers")
    resumed = run.has_checkpoint("last")
    check = partial(check_model, config, len(prepared.classes), load_weights=not resumed)
    on_workers = not local and _workers_check(config)
    with ThreadPoolExecutor(1) as background:  # the check imports PyTorch for seconds, while Ray's start mostly waits
        checked = None if on_workers else background.submit(check)
        if local:
            placement = Placement(Workers.fixed(1), True, "in this process")
        else:
            check_workers_know(config)
            placement = _place_on_ray(config, prepared, run, workers, cpu)
            report(StartupEvent("ray"))
        model = checked.result() if checked else None
    views = (
        _views(config, prepared, model, placement, local) if model and config.train.cached_views and not resumed else ""
    )

    def begin() -> None:
        record_run(config, prepared, run, workers=str(placement.workers), gpu=placement.workers.use_gpu)
        show_line(_plan(config, prepared, run, placement) + views)

    if not on_workers:
        begin()
    if local:
        return train_local(config, prepared, run, report, cpu)
    from animalclf.data.ray_loader import cache_images

    cache = cache_images(prepared, placement.cache_in_memory, input_cpus(placement.workers))
    # Imports Ray Train, for half a second in which Ray starts the processes that load the images.
    from animalclf.training.ray_trainer import train_on_ray

    start = Start(cache, check, begin) if on_workers else Start(cache)
    return train_on_ray(config, prepared, run, placement.workers, report, start)


def _workers_check(config: Config) -> bool:
    """Whether the workers call `check_model` while they start: those of a local Ray, which start at once. The driver
    then imports no PyTorch. It reads a file of weights itself, and measures cached views."""
    from animalclf.cluster import is_local

    return is_local() and not config.model.weights_file and not config.train.cached_views


def check_model(config: Config, classes: int, *, load_weights: bool) -> Classifier:
    """Build the model on the meta device, so that wrong settings show before the run folder is written; with
    `load_weights` also a file of weights that does not fit. Returns it. Raises UserError."""
    import torch

    from animalclf.models import build
    from animalclf.training import fine_tuning
    from animalclf.training.fitted_heads import check_frozen_base

    with torch.device("meta"):
        read_weights = load_weights and bool(config.model.weights_file)
        model = build(config.model, classes, load_weights=read_weights, keep_shape=config.keeps_shape)
    check_frozen_base(config, model)
    fine_tuning.check(config, model)
    return model


def _views(config: Config, prepared: Prepared, model: Classifier, placement: Placement, local: bool) -> str:
    """For the plan line: the bytes of the cached views. Raises UserError for more than one worker, and, if the worker
    is on this machine, for a disk without room."""
    from animalclf.training import cached_views

    if placement.workers.maximum > 1:
        raise UserError(
            f"train.cached_views: the maps are on one worker's disk, not {placement.workers.text}; set --workers 1"
        )
    rows = {split: len(index) for split, index in sampling_plan(prepared, config).rows.items()}
    shape = cached_views.map_shape(model, config.view_size)
    size = cached_views.stored_bytes(config, shape, rows["train"], sum(rows.values()))
    if local or os.environ.get(OWN_RAY_VARIABLE):
        cached_views.check_room(size)
    return f"; maps of {config.train.cached_views} views {size / 1e9:.2f} GB in {cached_views.cache_folder()}"


def _place_on_ray(config: Config, prepared: Prepared, run: Run, workers: Workers, cpu: bool) -> Placement:
    """Connect to Ray, and choose the workers and the cache that the cluster has room for. Raises UserError."""
    from animalclf.cluster import ensure_ray
    from animalclf.cluster_size import gpu_count, max_resources

    ensure_ray(workers.maximum)
    use_gpu = not cpu and max_resources().get("GPU", 0) > 0
    if not workers.maximum:
        workers = Workers.fixed(max(gpu_count(), 1) if use_gpu else 1)
    workers = replace(workers, use_gpu=use_gpu)
    weights = [config.model.weights_file] if config.model.weights_file else []
    resources = preflight(workers, [prepared.root, run.root, *weights])
    cache_in_memory, cache_text = choose_cache(config.train.cache, prepared)
    return Placement(workers, cache_in_memory, f"on {workers.text} ({resources}), {cache_text}")


def _plan(config: Config, prepared: Prepared, run: Run, placement: Placement) -> str:
    rows = sampling_plan(prepared, config).rows
    train, val = len(rows["train"]), len(rows["val"])
    split = count_text(val, "validation image")
    split = (
        f"{count_text(train, 'image')} in {config.train.folds} folds"
        if config.train.folds
        else f"{train:,} training and {split}"
    )
    data = f"{split}, {len(prepared.classes)} classes"
    if record := prepared.info.get("corrections"):
        from animalclf.prepare.sources.corrections import corrections_text

        data += f" ({corrections_text(record)})"
    workers = placement.workers
    known = expectation(run, config, prepared, train, str(workers), workers.use_gpu)
    expected = f"; {known.text}" if known else ""
    length = _length(config, len(run.metrics()))
    return f"{config.name}: {data}, {length} {placement.text}{expected}; run folder {run.root}"


def _length(config: Config, finished: int) -> str:
    """For the plan line: the epochs, of which `finished` are finished."""
    epochs, each = config.train.epochs, " for each fold and for all images" if config.train.folds else ""
    if config.train.heads:
        return f"heads fitted{each}, not trained in epochs,{' all finished,' if finished else ''}"
    if not finished:
        return count_text(epochs, "epoch") + each
    return (
        f"epochs {finished + 1} to {epochs}"
        if finished < epochs
        else f"{count_text(epochs, 'epoch')}{each}, all finished,"
    )


def record_run(config: Config, prepared: Prepared, run: Run, **fields: Any) -> None:
    """Write configuration and environment, with `fields` (fields of Environment), into the run folder; on a resume only
    what an extension of the run changes. Raises UserError for a run on other images."""
    if not run.exists():
        run.write_environment(
            prepared=prepared.root, data=prepared.info["source"], data_fingerprint=prepared.fingerprint, **fields
        )
        run.write_config(config)  # last: a folder with config.yaml is a run
        return
    stored = run.environment()
    if stored.data_fingerprint != prepared.fingerprint:
        raise UserError(
            f"{run.root}: was trained on other images ({stored.prepared}, fingerprint {stored.data_fingerprint[:12]}; "
            f"now {prepared.root}, {prepared.fingerprint[:12]}); resume with the same images, or start a new run"
        )
    if config_changes(run.config(), config):  # extended: until the new epochs are trained, the run is unfinished
        storage.remove(run.url("result.json"))
        run.write_config(config)


def train_local(config: Config, prepared: Prepared, run: Run, report: Report, cpu: bool = False) -> TrainingResult:
    """`--local`: the same training in this process without Ray, so that breakpoints work; on a GPU if there is one
    (not with `cpu`)."""
    import torch

    from animalclf.data.device_loader import DeviceLoaders
    from animalclf.data.loader import MemoryLoader, load_images
    from animalclf.training.distributed import RankContext, caller_state_restored, set_up_cpu
    from animalclf.training.train import train

    def report_locked(event: ProgressEvent) -> None:
        run.check_locked()
        report(event)

    device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
    images, on_device = load_images(prepared), DeviceLoaders(prepared.stored_size**2 * 3, device)

    def make_loader(plan: SamplingPlan, passes: Iterable[tuple[Phase, int]]) -> Loader:
        return on_device.loader_for(plan, lambda: images) or MemoryLoader(plan, images)

    with caller_state_restored(device):
        set_up_cpu(config.train.threads, 1)
        return train(config, prepared, run, make_loader, RankContext(device=device), report=report_locked)
