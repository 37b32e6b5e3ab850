"""What an epoch changes: as it was kept after the last one, or fresh; kept again after each; and which epoch was the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data.loader import Schedule
from animalclf.metrics import METRICS
from animalclf.models import build
from animalclf.models.classifier import Classifier
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.training.distributed import Place
from animalclf.training.optim import WeightAverage, make_optimizer
from animalclf.training.tensorboard import write_events
from animalclf.utils import storage

History = list[dict[str, Any]]  # rows of metrics.jsonl


@dataclass
class State:
    """What an epoch changes, and a resume restores."""

    model: Classifier
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    history: History


def begin(config: Config, run: Run, classes: int, place: Place) -> State:
    """Model, optimizer, averaged weights and history as they were after the last finished epoch, or fresh ones."""
    saved = checkpoint.load(run.checkpoint("last"), place.device) if run.has_checkpoint("last") else None
    torch.manual_seed(config.seed)  # every rank initialises alike
    model = build(config.model, classes, load_weights=saved is None).to(place.device)
    if config.train.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if saved:
        if frozen := _frozen(model) - saved["model"].keys():  # they are as they were at the best epoch, and kept with it only
            best = checkpoint.load(run.checkpoint("best"), place.device)["model"]
            saved["model"] |= {name: best[name] for name in frozen if name in best}
        checkpoint.load_weights(model, saved["model"], run.checkpoint("last"))
    optimizer = make_optimizer(model.parameters(), config.optim)
    average = WeightAverage(model, config.optim.ema) if config.optim.ema else None
    if saved:
        optimizer.load_state_dict(saved["optimizer"])
        if average:
            average.state, average.updates = average.state | saved["average"]["state"], saved["average"]["updates"]
    return State(model, optimizer, average, list(saved["history"]) if saved else [])


def keep(
    config: Config,
    schedule: Schedule,
    classes: list[str],
    run: Run,
    state: State,
    place: Place,
    writer: checkpoint.Writer,
    on_progress: Callable[[dict[str, Any]], None],
) -> None:
    """Rank 0 writes what the epoch made: the best model where it is one, all that a resume needs, the history; and then says that it is there."""
    if place.rank:
        return
    history, settings = list(state.history), configuration.to_dict(config)
    files = {}
    if best_row(history, config) is history[-1]:
        counts = counts_of(schedule, len(classes))
        prior = counts / counts.sum() if config.train.balance == "none" else (counts > 0) / np.count_nonzero(counts)
        model = {"config": settings, "classes": classes, "prior": prior.tolist(), "epoch": history[-1]["epoch"], "metrics": history[-1]}
        files["best"] = checkpoint.packed({**model, "model": state.model.state_dict()})
    frozen = _frozen(state.model)

    def moving(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in tensors.items() if name not in frozen}

    weights, average = state.model.state_dict(), None
    if state.average:
        weights, average = state.average.trained, {"state": moving(state.average.state), "updates": state.average.updates}
    resume = {"config": settings, "history": history, "model": moving(weights), "optimizer": state.optimizer.state_dict(), "average": average}
    files["last"] = checkpoint.packed(resume)

    def write() -> None:
        for name, content in files.items():  # best first, which has the frozen layers of last; the history after what it tells of
            storage.write_bytes(run.checkpoint(name), content)
        run.write_metrics(history)
        write_events(run, history)
        on_progress({"row": history[-1]})

    writer.add(write)


def best_row(history: History, config: Config) -> dict[str, Any]:
    """The epoch that `train.monitor` selects: the first with the best value; without a validation split the last one."""
    key = f"val_{config.train.monitor}"
    if not history or key not in history[-1]:
        return history[-1] if history else {}
    sign = 1 if METRICS.get(config.train.monitor).higher_is_better else -1
    return max(history, key=lambda row: sign * row[key])


def out_of_patience(history: History, config: Config) -> bool:
    return bool(config.train.patience and history) and history[-1]["epoch"] - best_row(history, config)["epoch"] >= config.train.patience


def counts_of(schedule: Schedule, classes: int) -> np.ndarray:
    """Training pictures of each class, int64 (classes,)."""
    return np.bincount(schedule.labels[schedule.rows["train"]], minlength=classes)


def _frozen(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
