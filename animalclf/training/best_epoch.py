"""Best-epoch selection and early stopping, from the history alone: without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

from animalclf.config import Config
from animalclf.metrics import METRICS
from animalclf.rows import EpochRow


def best_row(history: Sequence[EpochRow], config: Config) -> EpochRow:
    """The epoch to use: the first with the best value of `train.monitor`; with `train.select` last, and without a
    validation split, the last one. `history` is not empty."""
    monitor = config.train.monitor
    if config.train.select == "last" or monitor not in history[-1].val:
        return history[-1]
    sign = 1 if METRICS.get(monitor).higher_is_better else -1
    return max(history, key=lambda row: sign * row.val[monitor])


def selects_on_validation(config: Config) -> bool:
    """Whether the validation images select the epoch, if there are any."""
    train = config.train
    return train.select == "best" and train.epochs > 1 and not train.folds and not train.select_fraction


def out_of_patience(history: Sequence[EpochRow], config: Config) -> bool:
    """Whether the last `train.patience` epochs were no better than the best before them (never with patience 0)."""
    patience = config.train.patience
    return bool(patience and history) and history[-1].epoch - best_row(history, config).epoch >= patience


def is_done(history: Sequence[EpochRow], config: Config) -> bool:
    """Whether no epoch is left to train."""
    return len(history) >= config.train.epochs or out_of_patience(history, config)
