"""One training from a configuration and a prepared set to a whole run folder. Plain PyTorch; every rank runs the same function."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from animalclf.config import Config
from animalclf.data.augment import is_identity, torch_form
from animalclf.data.loader import Batch, Phase, Schedule, make_schedule
from animalclf.data.prepared_set import Prepared
from animalclf.metrics import from_confusion
from animalclf.runs import Run
from animalclf.training import checkpoint, loop
from animalclf.training.distributed import Place, average_statistics, together
from animalclf.training.final_eval import finish
from animalclf.training.frozen_features import feature_feed
from animalclf.training.mixup import mix
from animalclf.training.profiler import traced
from animalclf.training.train_state import State, begin, counts_of, keep, out_of_patience

Report = Callable[[dict[str, Any]], None]


class Feed(Protocol):
    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]: ...


MakeFeed = Callable[[Schedule, Sequence[tuple[Phase, int]]], Feed]


def train(config: Config, prepared: Prepared, run: Run, make_feed: MakeFeed, place: Place, on_epoch: Report, on_progress: Report) -> dict[str, Any]:
    """Train `config` on `prepared`, going on from the run folder's last finished epoch where it has one. Returns the content of result.json.

    `make_feed(schedule, passes)` gives this rank's batches; `on_epoch` gets each finished row of metrics.jsonl (on every rank), `on_progress`
    small dictionaries for a progress line: {"phase", "done", ...}, {"moment": name}, and {"row": of an epoch} once it is written and cannot be lost.
    Only rank 0 writes. Raises UserError on all ranks or on none.
    """
    started = time.time()
    on_progress({"moment": "workers ready", "workers": place.world})
    later = torch_form.on_device(config.augment.on, place.device) and not is_identity(config.augment)
    schedule, classes = make_schedule(prepared, config, augment_later=later), prepared.classes
    validating: list[Phase] = ["val"] if len(schedule.rows["val"]) else []
    state = together(lambda: begin(config, run, len(classes), place))
    first, kept = len(state.history), None
    if first < config.train.epochs and not out_of_patience(state.history, config):
        network: nn.Module = state.model
        asked, features_seconds = time.perf_counter(), 0.0
        if state.model.frozen_features and is_identity(config.augment):
            bf16 = loop.choose_bf16(config.train.precision, place.device)
            feed: Feed = (kept := feature_feed(state.model, schedule, make_feed, place, bf16, on_progress))
            network, features_seconds = state.model.head, time.perf_counter() - asked
        else:
            feed = make_feed(schedule, [(phase, epoch) for epoch in range(first, config.train.epochs) for phase in ("train", *validating)])
        parallel, writer = _parallel(network, config, place), checkpoint.Writer(run)
        tracing = config.train.profile and place.rank == 0
        with traced(run, place.device) if tracing else contextlib.nullcontext(lambda: None) as mark:

            def after_step() -> None:
                if state.average:
                    state.average.update(state.model)
                mark()

            keep_seconds = 0.0
            for epoch in range(first, config.train.epochs):
                row = _epoch(config, schedule, len(classes), state, network, parallel, feed, epoch, place, on_progress, after_step)
                ended = time.perf_counter()
                # What came before it is part of what an epoch took: keeping the one before, and in the first here the features.
                row |= {"keep_seconds": keep_seconds, "seconds": row["seconds"] + keep_seconds + features_seconds}
                if features_seconds:
                    row["features_seconds"], features_seconds = features_seconds, 0.0
                together(lambda: keep(config, schedule, classes, run, state, place, writer, on_progress))
                if state.average:
                    state.average.restore(state.model)
                on_epoch(row)
                keep_seconds = time.perf_counter() - ended
                if out_of_patience(state.history, config):
                    break
        together(writer.wait)
    else:  # a crash may have come between the last checkpoint and the history that it holds
        together(lambda: None if place.rank else run.write_metrics(state.history))
    return finish(config, prepared, schedule, run, make_feed, place, state.history, time.time() - started, kept)


def _parallel(network: nn.Module, config: Config, place: Place) -> nn.Module:
    if config.train.compile:
        network = torch.compile(network)  # type: ignore[assignment]
    if place.world == 1:
        return network
    devices = [place.device] if place.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(network, device_ids=devices, gradient_as_bucket_view=True)


def _epoch(
    config: Config, schedule: Schedule, classes: int, state: State, network: nn.Module, parallel: nn.Module, feed: Feed, epoch: int,
    place: Place, on_progress: Report, after_step: Callable[[], None],
) -> dict[str, Any]:  # fmt: skip
    """Train and validate one epoch; the new row of the history. The averaged weights, where there are any, are left in the model."""
    began = time.perf_counter()
    torch.manual_seed(hash((config.seed, epoch, place.rank)) & 0x7FFFFFFF)  # dropout: the same after a resume as without one
    state.model.train()
    augment, seed = config.augment, config.seed
    done, clock = loop.train_epoch(
        parallel,
        feed.batches("train", epoch),
        schedule.step_sizes("train"),
        state.optimizer,
        config.optim,
        config.train,
        epoch,
        place=place,
        class_weights=class_weights(config, schedule, classes, place.device),
        view=partial(torch_form.augment_batch, augment=augment, seed=seed, epoch=epoch, input_size=schedule.input_size)
        if schedule.augment_later
        else None,
        mix=(lambda image, label, step: mix(augment, seed, epoch, step, image, label)) if augment.mixup or augment.cutmix else None,
        after_step=after_step,
        progress=_ticker(on_progress, "train", epoch, config, len(schedule.rows["train"])),
    )
    loop.same_count("training", int(done["rows"]), len(schedule.rows["train"]))
    average_statistics(state.model)
    row: dict[str, Any] = {
        "epoch": epoch + 1,
        "lr": state.optimizer.param_groups[0]["lr"],
        "train_loss": done["loss"],
        "train_accuracy": done["accuracy"],
        "train_rows": int(done["rows"]),
        "train_seconds": clock.total,
        "pictures_per_s": done["rows"] / clock.total,
        "workers": place.world,
        "wait_share": clock.wait / clock.total,
        # Where rank 0's time went: in input tasks beside the steps, and in the loop itself.
        "read_seconds": clock.read,
        "augment_seconds": clock.augment,
        "wait_seconds": clock.wait,
        "handover_seconds": clock.handover,
        "step_seconds": clock.total - clock.wait - clock.handover,
    }
    if state.average:
        state.average.apply(state.model)
    trained = time.perf_counter()
    if len(schedule.rows["val"]):
        tick = _ticker(on_progress, "val", epoch, config, len(schedule.rows["val"]))
        bf16 = loop.choose_bf16(config.train.precision, place.device)
        state.model.eval()
        confusion, loss = loop.validate(network, feed.batches("val", epoch), classes, device=place.device, bf16=bf16, progress=tick)
        loop.same_count("validation", int(confusion.sum()), len(schedule.rows["val"]))
        row |= {"val_loss": loss / int(confusion.sum()), "val_rows": int(confusion.sum())}
        row |= {f"val_{key}": value for key, value in from_confusion(confusion).items()}
    row["validate_seconds"] = time.perf_counter() - trained
    row["seconds"] = time.perf_counter() - began
    state.history.append(row)
    return row


def class_weights(config: Config, schedule: Schedule, classes: int, device: torch.device) -> torch.Tensor | None:
    """The seed's weights n / (classes x n_class), float32 (classes,): a class of average size weighs 1. None without `class_weights`."""
    if config.train.balance != "class_weights":
        return None
    counts = counts_of(schedule, classes)
    return torch.tensor(counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1)), dtype=torch.float32, device=device)


def _ticker(report: Report, phase: str, epoch: int, config: Config, rows: int) -> Callable[[int, float], None]:
    """A progress callback that speaks at most twice a second."""
    last = 0.0

    def tick(done: int, seconds: float) -> None:
        nonlocal last
        if time.monotonic() - last > 0.5 or done >= rows:
            last = time.monotonic()
            report({"phase": phase, "epoch": epoch + 1, "epochs": config.train.epochs, "done": min(done, rows), "of": rows, "seconds": seconds})

    return tick
