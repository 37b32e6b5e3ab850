"""The configuration tree: each key's name, type, default, range and documentation, in one place.

Each group of keys has a module here. Errors, docs/config.md, the JSON schema for editors and `animalclf recipes` are
derived from them. To add a key, write one field with its docstring, then run `python -m animalclf.config.reference`.
"""

from __future__ import annotations

from typing import Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from animalclf.config.schema.augment import Augment
from animalclf.config.schema.data import Data
from animalclf.config.schema.model import Model
from animalclf.config.schema.optim import Optim
from animalclf.config.schema.train import Train
from animalclf.config.values import STRICT, Name, Seed
from animalclf.errors import UserError
from animalclf.utils.canvas import STEP


@dataclass(frozen=True, config=STRICT)
class Config:
    """Everything that defines one training run."""

    name: Name = "experiment"
    """Name of the run in leaderboards and reports; a recipe uses its file name."""

    seed: Seed = 0
    """Random seed of initial weights, batch order, augmentation and dropout. Train with several seeds to see the
    spread. The split has its own, data.split_seed."""

    data: Data = Data()
    model: Model = Model()
    augment: Augment = Augment()
    optim: Optim = Optim()
    train: Train = Train()

    @property
    def view_size(self) -> int:
        """Side in pixels of the square arrays that the model reads: with data.resize=keep the stored ones."""
        return self.data.stored_size if self.keeps_shape else self.model.input_size

    @property
    def keeps_shape(self) -> bool:
        """Whether the model computes on the shape of each image."""
        return self.data.resize == "keep"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.data.resize == "keep" and self.data.stored_size % STEP:
            raise UserError(
                f"data.stored_size: with data.resize=keep a multiple of {STEP}, not {self.data.stored_size}"
            )
        if self.data.stored_size < self.model.input_size:
            raise UserError(
                f"data.stored_size: {self.data.stored_size} is below model.input_size {self.model.input_size}; "
                "images are stored at least as large as the model's input"
            )
        if self.optim.name == "sgd" and not 0 <= self.optim.momentum < 1:
            raise UserError(f"optim.momentum: from 0 to below 1 for sgd, not {self.optim.momentum:g}")
        _check_folds(self)
        if self.train.select_fraction and (self.train.select == "last" or self.train.heads):
            raise UserError("train.select_fraction: 0 with train.select=last or train.heads, which select no epoch")
        if self.train.select == "last" and self.train.patience:
            raise UserError("train.patience: 0 with train.select=last, because it stops by the validation images")
        if self.optim.warmup_epochs > self.train.epochs:
            raise UserError(
                f"optim.warmup_epochs: from 0 to train.epochs = {self.train.epochs}, not {self.optim.warmup_epochs:g}"
            )
        return self


def _check_folds(config: Config) -> None:
    """Raise UserError for settings that do not fit `train.folds`."""
    if config.train.folds == 1:
        raise UserError("train.folds (--folds): 0 for none, or at least 2, not 1")
    if not config.train.folds:
        return
    for key, value, reason in (
        ("data.limit (--limit)", config.data.limit, "all images are in the folds"),
        ("data.folds", config.data.folds, "it chooses one fold for validation, train.folds trains all"),
        ("train.patience", config.train.patience, "the images of a fold must not end its training"),
        ("train.select_fraction", config.train.select_fraction, "every fold uses its last epoch"),
    ):
        if value:
            raise UserError(f"{key}: not with train.folds (--folds): {reason}; set {key.split()[0]}=0")
