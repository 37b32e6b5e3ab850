"""Training state: create or resume, save."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.models import build, fitted_heads
from animalclf.models.classifier import Classifier
from animalclf.models.weights import load_state
from animalclf.rows import EpochEnd, EpochRow
from animalclf.runs import Run
from animalclf.training import checkpoint, fine_tuning
from animalclf.training.best_epoch import best_row, is_done
from animalclf.training.checkpoint import BestCheckpoint, LastCheckpoint
from animalclf.training.context import TrainContext
from animalclf.training.distributed import RankContext
from animalclf.training.fine_tuning import Weights
from animalclf.training.fitted_heads import check_frozen_base
from animalclf.training.optim import AverageState, WeightAverage, make_optimizer, portable_state
from animalclf.training.tensorboard import write_events


@dataclass
class TrainState:
    """What an epoch changes and a resume restores."""

    model: Classifier
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    history: list[EpochRow]
    start: Weights | None = None
    """The initial weights, if they are used (optim.l2_sp, optim.wise_ft)."""


def create_or_resume(config: Config, run: Run, classes: int, ranks: RankContext) -> TrainState:
    """Model, optimizer, averaged weights and history as they were after the last finished epoch, or new ones.

    Raises UserError for a checkpoint that cannot be read, or of another architecture.
    """
    last: LastCheckpoint | None = None
    if run.has_checkpoint("last"):
        last = checkpoint.load(run.checkpoint("last"), ranks.device)
    model = new_model(config, classes, ranks, load_weights=last is None)
    if last:
        if frozen := _frozen_names(model) - last["model"].keys():
            best: BestCheckpoint = checkpoint.load(run.checkpoint("best"), ranks.device)
            last["model"] |= {name: best["model"][name] for name in frozen if name in best["model"]}
        if not config.train.heads:
            load_state(model, last["model"], run.checkpoint("last"))
    optimizer = make_optimizer(model.parameters(), config.optim, fine_tuning.lr_factors(model, config.optim))
    if last and config.train.heads:
        model.head = fitted_heads.module_from(last["model"])
    average = WeightAverage(model, config.optim.ema) if config.optim.ema or config.optim.wise_ft else None
    if last:
        optimizer.load_state_dict(last["optimizer"])
        if average and last["average"]:
            average.state, average.updates = average.state | last["average"]["state"], last["average"]["updates"]
    return TrainState(
        model,
        optimizer,
        average,
        [EpochRow.from_dict(row, run.checkpoint("last")) for row in last["history"]] if last else [],
        last.get("start") if last else None,
    )


def new_model(config: Config, classes: int, ranks: RankContext, load_weights: bool = True) -> Classifier:
    """The model before its first epoch, the same on every rank. Raises UserError for settings that do not fit it."""
    torch.manual_seed(config.seed)
    model = build(config.model, classes, load_weights=load_weights, keep_shape=config.keeps_shape).to(ranks.device)
    check_frozen_base(config, model)
    fine_tuning.check(config, model)
    return model.to(memory_format=torch.channels_last) if config.train.channels_last else model


def save(context: TrainContext, state: TrainState, writer: checkpoint.Writer) -> None:
    """Rank 0 writes the checkpoints (`last`, and `best` if this epoch is the best), the history and the event file,
    and then reports the end of the epoch. Raises UserError if they cannot be written."""
    if context.ranks.rank:
        return
    history, config = list(state.history), context.config
    writes = {}
    is_best = best_row(history, config) is history[-1]
    if not context.validate:  # the epochs before the last are not used; the first holds the frozen layers of last
        is_best = len(history) == 1 or is_done(history, config)
    if is_best:
        writes["best"] = checkpoint.snapshot(_best_checkpoint(context, state), context.ranks.device)
    writes["last"] = checkpoint.snapshot(_last_checkpoint(config, state), context.ranks.device)

    def write() -> None:
        for name, write_checkpoint in writes.items():  # best first: it holds the frozen layers of last
            write_checkpoint(context.run.checkpoint(name))
        context.run.write_metrics(history)  # after the checkpoints of the epochs that it lists
        write_events(context.run, history[-1])
        context.report(EpochEnd(history[-1]))

    writer.add(write)


def _best_checkpoint(context: TrainContext, state: TrainState) -> BestCheckpoint:
    counts, row = context.class_counts(), state.history[-1]
    prior = counts / counts.sum() if context.config.train.balance == "none" else (counts > 0) / np.count_nonzero(counts)
    return {
        "config": configuration.to_dict(context.config),
        "classes": context.classes,
        "prior": prior.tolist(),
        "epoch": row.epoch,
        "metrics": row.to_dict(),
        "model": state.model.state_dict(),
    }


def _last_checkpoint(config: Config, state: TrainState) -> LastCheckpoint:
    frozen = _frozen_names(state.model)
    weights: dict[str, torch.Tensor] = state.model.state_dict()
    average: AverageState | None = None
    if state.average:  # the averaged weights are in the model
        weights = state.average.trained
        average = {"state": _without(state.average.state, frozen), "updates": state.average.updates}
    content: LastCheckpoint = {
        "config": configuration.to_dict(config),
        "history": [row.to_dict() for row in state.history],
        "model": _without(weights, frozen),
        "optimizer": portable_state(state.optimizer),
        "average": average,
    }
    if state.start:
        content["start"] = state.start
    return content


def _frozen_names(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def _without(tensors: dict[str, torch.Tensor], names: set[str]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}
