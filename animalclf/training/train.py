"""One training: from a configuration and a prepared set to a complete run folder. Plain PyTorch; every rank runs the
same function."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from animalclf.config import Config
from animalclf.data.augment import is_identity, torch_form
from animalclf.data.loader import Loader, LoaderFactory
from animalclf.data.prepared_set import Prepared
from animalclf.data.sampler import Phase, sampling_plan
from animalclf.metrics import from_confusion
from animalclf.rows import EpochRow, ProgressEvent, StartupEvent, TrainingResult
from animalclf.runs import Run
from animalclf.training import checkpoint, loop, step_graphs
from animalclf.training.best_epoch import is_done, out_of_patience
from animalclf.training.cached_views import with_cached_views
from animalclf.training.context import PassProgress, TrainContext
from animalclf.training.cross_validation import cross_validate
from animalclf.training.distributed import RankContext, average_statistics, data_parallel, on_all_ranks
from animalclf.training.final_eval import finish
from animalclf.training.fine_tuning import average_with, gradient_hooks, initial_weights
from animalclf.training.fitted_heads import fit_heads, start_from_fitted_head
from animalclf.training.frozen_features import FeatureLoader, feature_loader, one_thread_for_small
from animalclf.training.loop import Clock, TrainMetrics, TrainPass
from animalclf.training.mixup import mix_batch, mixes
from animalclf.training.optim import WeightAverage, learning_rate
from animalclf.training.profiler import trace_steps
from animalclf.training.progress import Report
from animalclf.training.selection import selection_context
from animalclf.training.step_graphs import StepGraphs
from animalclf.training.train_state import TrainState, create_or_resume, save


def ignore(event: ProgressEvent | EpochRow) -> None:
    """Takes an event and does nothing."""


def train(
    config: Config,
    prepared: Prepared,
    run: Run,
    make_loader: LoaderFactory,
    ranks: RankContext,
    on_epoch: Callable[[EpochRow], None] = ignore,
    report: Report = ignore,
) -> TrainingResult:
    """Train `config` on `prepared` from the last finished epoch in the run folder, or from the start. Returns the
    content of result.json.

    `make_loader(plan, passes)` creates the loader of this rank's batches. `on_epoch` is called with each row of
    metrics.jsonl, on every rank, `report` with progress events: an EpochEnd comes once the epoch is saved. Only rank 0
    writes files. Raises UserError on all ranks or on none.
    """
    started = time.time()
    report(StartupEvent("workers", ranks.world_size))
    augment_on_device = torch_form.on_device(config.augment.on, ranks.device) and not is_identity(config.augment)
    plan = sampling_plan(prepared, config, augment_on_device=augment_on_device)
    context = with_cached_views(TrainContext(config, prepared, plan, run, ranks, make_loader, report))
    train_once = partial(_train_once, on_epoch=on_epoch)
    if config.train.folds:
        return cross_validate(context, train_once)
    selection = selection_context(context)
    history, features = train_once(selection, None)
    return finish(context, history, time.time() - started, features if selection is context else None)


def _train_once(
    context: TrainContext, features: FeatureLoader | None, on_epoch: Callable[[EpochRow], None]
) -> tuple[list[EpochRow], FeatureLoader | None]:
    """Train the remaining epochs of the run folder. `features` of a frozen base, if they are known. Returns the history
    and the features, if they were used."""
    config, run, ranks = context.config, context.run, context.ranks
    state = on_all_ranks(lambda: create_or_resume(config, run, len(context.classes), ranks))
    if not is_done(state.history, config):
        return state.history, train_epochs(context, state, on_epoch, features)
    # A crash may have lost the metrics.jsonl that the last checkpoint repeats.
    on_all_ranks(lambda: None if ranks.rank else run.write_metrics(state.history))
    return state.history, features.with_plan(context.plan) if features else None


@dataclass(frozen=True, eq=False)
class TrainedPart:
    """What trains, and on which batches: the whole model on images, or its head on the features of a frozen base."""

    network: nn.Module
    parallel: nn.Module
    """`network`, compiled and wrapped for the ranks."""
    loader: Loader
    class_weights: torch.Tensor | None
    graphs: StepGraphs | None
    features: FeatureLoader | None = None
    features_seconds: float = 0.0


def train_epochs(
    context: TrainContext,
    state: TrainState,
    on_epoch: Callable[[EpochRow], None],
    features: FeatureLoader | None = None,
) -> FeatureLoader | None:
    """Train and save the remaining epochs. `features` of a frozen base are computed if none are given. Returns those
    that were used."""
    config, run, ranks = context.config, context.run, context.ranks
    prepare_fine_tuning(context, state)
    part = _trained_part(context, state, features)
    features_seconds, checkpoint_seconds = part.features_seconds + context.features_seconds, 0.0
    profile = config.train.profile and ranks.rank == 0
    profiling = trace_steps(run, ranks.device) if profile else contextlib.nullcontext(lambda: None)
    sgd_head = part.features and not config.train.heads and not config.train.threads
    threads = one_thread_for_small(part.network) if sgd_head else contextlib.nullcontext()
    with checkpoint.Writer(run, ranks.device) as writer, profiling as profiler_step, threads:
        for epoch in range(len(state.history), config.train.epochs):
            row = _epoch(context, state, part, epoch, profiler_step)
            ended = time.perf_counter()
            # The seconds of an epoch include the checkpoint of the epoch before, and those of the first the features.
            seconds = row.seconds + checkpoint_seconds + features_seconds
            row = replace(
                row, seconds=seconds, checkpoint_seconds=checkpoint_seconds, features_seconds=features_seconds or None
            )
            state.history.append(row)
            on_all_ranks(lambda: save(context, state, writer))
            if state.average:
                state.average.restore(state.model)
            on_epoch(row)
            checkpoint_seconds, features_seconds = time.perf_counter() - ended, 0.0
            if out_of_patience(state.history, config):
                break
        on_all_ranks(writer.wait)
    return part.features


def prepare_fine_tuning(context: TrainContext, state: TrainState) -> None:
    """Before the first epoch: fit the head to start from, and remember the initial weights, if they are configured."""
    optim = context.config.optim
    if state.history:
        return
    if context.config.train.head_start == "fitted":
        start_from_fitted_head(context, state.model)
        state.average = state.average and WeightAverage(state.model, optim.ema)
    if optim.l2_sp or optim.wise_ft:
        state.start = initial_weights(state.model)


def _trained_part(context: TrainContext, state: TrainState, features: FeatureLoader | None) -> TrainedPart:
    config, ranks, model = context.config, context.ranks, state.model
    weights, graphs = class_weights(context), _step_graphs(config, state.optimizer, ranks)
    started = time.perf_counter()
    if model.frozen_features and is_identity(config.augment):
        seconds = 0.0
        if features:
            features = features.with_plan(context.plan)
        else:
            features = feature_loader(context, model)
            seconds = time.perf_counter() - started
        head = data_parallel(model.head, ranks, config.train.gradient_compression)
        return TrainedPart(model.head, head, features, weights, graphs, features, seconds)
    phases: list[Phase] = ["train", "val"] if context.val_rows else ["train"]
    passes = ((phase, epoch) for epoch in range(len(state.history), config.train.epochs) for phase in phases)
    loader = context.make_loader(context.plan, passes)
    compiled = worth_compiling(config, len(context.plan.rows["train"]), ranks.device)
    # Compiled for each of the two batch sizes of an epoch: kernels for any size are a sixth slower.
    network = torch.compile(model, dynamic=False) if compiled else model
    parallel = data_parallel(network, ranks, config.train.gradient_compression)  # type: ignore[arg-type]
    return TrainedPart(model, parallel, loader, weights, graphs)


def _step_graphs(config: Config, optimizer: torch.optim.Optimizer, ranks: RankContext) -> StepGraphs | None:
    mixing = config.augment.mixup or config.augment.cutmix
    changing = mixing or config.train.unfreeze_every
    usable = config.train.cuda_graphs and not changing and step_graphs.usable(optimizer, ranks.device, ranks.world_size)
    return StepGraphs(optimizer, ranks.device) if usable else None


def worth_compiling(config: Config, rows: int, device: torch.device) -> bool:
    """Whether to use `torch.compile`: if it is configured, or earns its time in a training on `rows` images an
    epoch."""
    long_enough = 0 < config.train.compile_from <= rows * config.train.epochs
    return config.train.compile or (device.type == "cuda" and long_enough)


# ------------------------------------------------------------------------------------------------------------ one epoch


def _epoch(
    context: TrainContext, state: TrainState, part: TrainedPart, epoch: int, profiler_step: Callable[[], None]
) -> EpochRow:
    """Train and validate one epoch. Leaves the averaged weights, if they are configured, in the model."""
    started = time.perf_counter()
    # Of dropout: a resume draws the same numbers.
    torch.manual_seed(hash((context.config.seed, epoch, context.ranks.rank)) & 0x7FFFFFFF)
    fitting = fit_heads(context, state.model, part.features) if part.features and context.config.train.heads else None
    metrics, clock = fitting[:2] if fitting else _train(context, state, part, epoch, profiler_step)
    average_statistics(state.model)
    optim = context.config.optim
    if loop.weights_diverged(state.model):  # on every rank: all have the same weights
        raise loop.divergence_error(optim, epoch, f"weights are NaN or beyond {loop.MAX_WEIGHT:g}")
    if state.average:
        state.average.apply(state.model)
    if state.start and optim.wise_ft:
        average_with(state.model, state.start, optim.wise_ft)
    trained = time.perf_counter()
    val_rows = context.val_rows
    val = _validate(context, state, part, epoch) if val_rows else {}
    if not np.isfinite(list(val.values())).all():
        raise loop.divergence_error(optim, epoch, "the validation loss is NaN or infinite")
    ended = time.perf_counter()
    steps = context.plan.steps("train")
    return EpochRow(
        epoch=epoch + 1,
        lr=0.0 if fitting else learning_rate(optim, (epoch + 1) * steps - 1, steps, context.config.train.epochs),
        train_loss=metrics.loss,
        train_accuracy=metrics.accuracy,
        train_rows=metrics.rows,
        train_seconds=clock.total,
        images_per_s=metrics.rows / clock.total,
        workers=context.ranks.world_size,
        wait_fraction=clock.wait / clock.total,
        read_seconds=clock.read,
        augment_seconds=clock.augment,
        wait_seconds=clock.wait,
        copy_seconds=clock.copy,
        step_seconds=clock.total - clock.wait - clock.copy,
        val_rows=val_rows or None,
        val=val,
        heads=fitting.heads if fitting else None,
        validate_seconds=ended - trained,
        seconds=ended - started,
    )


def _train(
    context: TrainContext, state: TrainState, part: TrainedPart, epoch: int, profiler_step: Callable[[], None]
) -> tuple[TrainMetrics, Clock]:
    config, plan, ranks = context.config, context.plan, context.ranks
    augment, rows = config.augment, len(plan.rows["train"])
    augment_batch = partial(
        torch_form.augment_batch, augment=augment, seed=config.seed, epoch=epoch, input_size=plan.input_size
    )
    mix = partial(mix_batch, augment=augment, seed=config.seed, epoch=epoch)
    update_average = [partial(state.average.update, state.model)] if state.average else []
    settings = TrainPass(
        config=config,
        epoch=epoch,
        step_sizes=plan.step_sizes("train"),
        ranks=ranks,
        class_weights=part.class_weights,
        augment=augment_batch if plan.augment_on_device else None,
        mix=mix if mixes(config, epoch) else None,
        graphs=part.graphs,
        before_step=gradient_hooks(state.model, config, state.start, epoch),
        after_step=(*update_average, profiler_step),
        progress=PassProgress(context, "train", epoch),
    )
    state.model.train()
    metrics, clock = loop.train_epoch(part.parallel, part.loader.batches("train", epoch), state.optimizer, settings)
    loop.check_row_count("training", metrics.rows, rows)
    return metrics, clock


def _validate(context: TrainContext, state: TrainState, part: TrainedPart, epoch: int) -> dict[str, float]:
    """The metrics of the validation split by name."""
    state.model.eval()
    confusion, loss = loop.validate(
        state.model.head if part.features else part.network,
        part.loader.batches("val", epoch),
        len(context.classes),
        device=context.ranks.device,
        bf16=context.bf16,
        progress=PassProgress(context, "val", epoch),
    )
    rows = int(confusion.sum())
    loop.check_row_count("validation", rows, len(context.plan.rows["val"]))
    return {"loss": loss / rows, **from_confusion(confusion)}


def class_weights(context: TrainContext) -> torch.Tensor | None:
    """n / (classes x n_class), float32 (classes,): a class of average size has weight 1. None unless `train.balance` is
    class_weights."""
    if context.config.train.balance != "class_weights":
        return None
    counts = context.class_counts()
    weights = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return torch.tensor(weights, dtype=torch.float32, device=context.ranks.device)
