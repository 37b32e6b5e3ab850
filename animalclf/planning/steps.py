"""The timed steps themselves, in the process that measure.py starts. Plain PyTorch."""

from __future__ import annotations

import contextlib
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from animalclf.config import Config
from animalclf.data.augment import is_identity, torch_form
from animalclf.data.device_loader import DeviceLoaders
from animalclf.data.loader import Loader, MemoryLoader, load_images
from animalclf.data.prepared_set import Prepared, open_prepared
from animalclf.data.sampler import Phase, SamplingPlan, sampling_plan
from animalclf.models.classifier import count_parameters
from animalclf.planning import head_fit
from animalclf.planning.sample import SampleAnswer, SampleTask, write_sample
from animalclf.rows import EpochRow, Measured
from animalclf.runs import Run
from animalclf.training import frozen_features
from animalclf.training.context import TrainContext
from animalclf.training.distributed import RankContext, set_up_cpu
from animalclf.training.feature_cache import cache_of
from animalclf.training.frozen_features import FeatureLoader
from animalclf.training.train import ignore, train_epochs
from animalclf.training.train_state import TrainState, create_or_resume
from animalclf.utils import storage

EPOCHS = 4  # of the sample: the first warms up
SECONDS = 5.0  # after which no further epoch starts, if two have ended
LONG_SECONDS = 15.0  # of the sample's features with their warm-up, which are then not computed again without it


def measure_steps(task: SampleTask, folder: str, imports: float) -> SampleAnswer:
    """Write the sample into `folder`, and time the parts of its training there. Raises UserError as the training
    does."""
    prepared, prepare_seconds = write_sample(task.sample, storage.join(folder, "prepared"))
    device = torch.device("cuda" if torch.cuda.is_available() and not task.cpu else "cpu")
    set_up_cpu(task.config.train.threads, task.workers_per_node)
    context = _context(_sample_config(task), prepared, Run(storage.join(folder, "run")), RankContext(device=device))
    started = time.perf_counter()
    state = create_or_resume(context.config, context.run, len(context.classes), context.ranks)
    build = time.perf_counter() - started
    parameters, trainable = (count_parameters(state.model, only) for only in (False, True))
    cached = _has_cached_features(task, context, state)
    head = count_parameters(state.model.head)
    history, features = _train(context, state)
    measured = _epoch_seconds(context, history)
    measured = replace(
        measured,
        device=device.type,
        precision="bf16" if context.bf16 else "fp32",
        parameters=parameters,
        trainable=trainable,
        imports=imports,
        build=build,
        best_bytes=storage.size(context.run.checkpoint("best")),
        last_bytes=storage.size(context.run.checkpoint("last")),
    )
    if features:
        measured = replace(
            measured, feature_seconds=_feature_seconds(context, state, history[0]), features=features.features[0].size
        )
    if features and context.config.train.heads:
        measured = replace(measured, parameters=parameters - head, trainable=0)
        measured = head_fit.measure(measured, context, features, task.train_counts)
    if device.type == "cuda":
        memory, total = torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
        measured = replace(measured, gpu_bytes=memory, gpu_total=total)
    return SampleAnswer(replace(measured, worker_bytes=_peak_memory()), prepare_seconds, cached)


def _sample_config(task: SampleTask) -> Config:
    """The configuration of the training on the sample: its steps, without what decides how many there are."""
    config = task.config
    train = replace(
        config.train,
        epochs=1 if config.train.heads else EPOCHS,
        batch_size=task.batch_size,
        folds=0,
        select_fraction=0.0,
        patience=0,
        unfreeze_every=0,
        cache_features=False,
        profile=False,
        compile=False,
        compile_from=0,
    )
    data, optim = replace(config.data, limit=0), replace(config.optim, warmup_epochs=0)
    return replace(config, data=data, train=train, optim=optim)


def _context(config: Config, prepared: Prepared, run: Run, ranks: RankContext) -> TrainContext:
    images, on_device = load_images(prepared), DeviceLoaders(prepared.stored_size**2 * 3, ranks.device)

    def make_loader(plan: SamplingPlan, passes: Iterable[tuple[Phase, int]]) -> Loader:
        return on_device.loader_for(plan, lambda: images) or MemoryLoader(plan, images)

    augment_on_device = torch_form.on_device(config.augment.on, ranks.device) and not is_identity(config.augment)
    plan = sampling_plan(prepared, config, augment_on_device=augment_on_device)
    return TrainContext(config, prepared, plan, run, ranks, make_loader, ignore)


class _Enough(Exception):
    """Ends the training of the sample."""


def _train(context: TrainContext, state: TrainState) -> tuple[list[EpochRow], FeatureLoader | None]:
    """Train the epochs of the sample, as far as SECONDS allow. Returns their rows, and the features of a frozen
    base."""
    started, features = time.perf_counter(), None

    def on_epoch(row: EpochRow) -> None:
        if len(state.history) > 1 and time.perf_counter() - started > SECONDS:
            raise _Enough

    if state.model.frozen_features and is_identity(context.config.augment):
        features = frozen_features.feature_loader(context, state.model)
        state_seconds = time.perf_counter() - started
    with contextlib.suppress(_Enough):
        train_epochs(context, state, on_epoch, features)
    if features:
        state.history[0] = replace(state.history[0], features_seconds=state_seconds)
    return state.history, features


def _epoch_seconds(context: TrainContext, history: list[EpochRow]) -> Measured:
    """Medians over the epochs after the first, if there are some; the other fields are empty."""
    rows, steps = history[1:] or history, context.plan.steps("train")
    trained, validated = len(context.plan.rows["train"]), max(1, context.val_rows)

    def median(seconds: Callable[[EpochRow], float]) -> float:
        return statistics.median(map(seconds, rows))

    return Measured(
        step_seconds=median(lambda row: row.step_seconds + row.copy_seconds) / steps,
        step_images=trained / steps,
        input_seconds=median(lambda row: row.read_seconds + row.augment_seconds) / trained,
        validate_seconds=median(lambda row: row.validate_seconds) / validated,
        epoch_seconds=median(lambda row: row.seconds - row.train_seconds - row.validate_seconds),
    )


def _feature_seconds(context: TrainContext, state: TrainState, first: EpochRow) -> float:
    """Seconds of the base on one image, after a warm-up."""
    seconds, started = first.features_seconds or 0.0, time.perf_counter()
    if seconds < LONG_SECONDS:
        frozen_features.feature_loader(context, state.model)
        seconds = time.perf_counter() - started
    return seconds / sum(len(context.plan.rows[split]) for split in ("train", "val"))


def _has_cached_features(task: SampleTask, context: TrainContext, state: TrainState) -> bool:
    """Whether the prepared set has the features of this base."""
    if not (task.sample.is_prepared and task.config.train.cache_features and state.model.frozen_features):
        return False
    cache = cache_of(replace(context, prepared=open_prepared(task.sample.root)), state.model)
    return is_identity(context.config.augment) and storage.exists(cache.url)


def _peak_memory() -> int:
    """Bytes that this process has held at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
