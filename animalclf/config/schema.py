"""The experiment: one frozen dataclass tree, read from a YAML recipe and `--set key=value`; unknown keys are refused with the nearest valid one."""

from __future__ import annotations

import typing
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

import yaml

from animalclf.config.parsing import assignment, build, flat, nearest, put, read, to_dict
from animalclf.errors import UserError


@dataclass(frozen=True)
class Data:
    """What `prepare` makes of the pictures. Every key here is part of the prepared set's fingerprint."""

    stored_size: int = 144  # pixels; a little above the model's input, so that zooming in keeps detail
    store: Literal["pixels", "jpeg"] = "pixels"  # jpeg: a fifth of the disk or less, decoded when training starts, quality 95
    val: float = 0.2  # share of each class for validation
    test: float = 0.0  # share of each class for a test split; 0 = none
    folds: int = 0  # k folds instead of a share: fold number `fold` is the validation split
    fold: int = 0
    split_seed: int = 0
    near_copies: bool = True  # False: only identical files count as copies
    max_bad: float = 0.05  # share of unreadable pictures above which prepare refuses the set
    max_pixels: int = 100_000_000  # larger pictures are set aside as decompression bombs
    limit: int = 0  # use only so many pictures, spread over the classes; 0 = all
    path_column: str = "path"  # for CSV and Parquet tables
    label_column: str = "label"
    split_column: str = "split"


@dataclass(frozen=True)
class Model:
    name: str = "big_cnn"  # see animalclf/models/__init__.py
    input_size: int = 128  # pixels
    dropout: float = 0.2
    batchnorm_momentum: float = 0.99  # of the big CNN, in Keras's sense: the share of the old statistics that stays at each step
    weights: str = "none"  # "none", "imagenet" (downloaded once, checked), or a path or s3:// URL of a state dict
    trainable: tuple[str, ...] = ("all",)  # layer names by prefix, e.g. block5, block4_conv3, head


@dataclass(frozen=True)
class Augment:
    """The seed's warp (one affine map a picture, border replicated), and what recipes since then add to it. All zero = none."""

    rotation: float = 25.0  # degrees, uniform in +-
    shift: float = 0.2  # share of the side, uniform in +-, x and y
    zoom: tuple[float, float] = (0.6, 1.4)  # factor on the sampling grid as in Keras: below 1 zooms in; x and y drawn apart
    flip: bool = True  # mirror half of the pictures
    crop: tuple[float, float] = (1.0, 1.0)  # random resized crop: share of the area, uniform; sides 3:4 to 4:3. (1, 1) = none
    brightness: float = 0.0  # colour jitter: factor uniform in 1 +-
    contrast: float = 0.0  # about mid-grey
    saturation: float = 0.0
    trivial: bool = False  # TrivialAugment: one operation a picture, of random strength
    erase: float = 0.0  # share of the pictures of which a random rectangle is greyed out
    mixup: float = 0.0  # alpha of mixup, on the training device; 0 = none
    cutmix: float = 0.0  # alpha of CutMix; with both, each step takes one or the other
    on: Literal["auto", "data", "device"] = "auto"  # who augments: Ray Data tasks, or the training device (auto: a GPU where there is one)


@dataclass(frozen=True)
class Optim:
    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    eps: float = 1e-7  # Keras's Adam
    momentum: float = 0.9  # sgd only
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_epochs: float = 0.0
    clip_norm: float = 0.0  # gradient norm limit; 0 = none
    label_smoothing: float = 0.0
    ema: float = 0.0  # decay of the averaged weights that are evaluated and kept; 0 = none


@dataclass(frozen=True)
class Train:
    epochs: int = 110
    batch_size: int = 128  # pictures a step over all workers
    accumulate: int = 1  # micro-batches a step on each worker: less memory, same arithmetic but for BatchNorm
    balance: Literal["none", "class_weights", "sampling"] = "none"
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where the hardware computes it natively
    channels_last: bool = True
    compile: bool = False
    cache: Literal["auto", "memory", "disk"] = "auto"  # where the pictures wait: Ray's object store, or the nodes' disks (auto: as it fits)
    patience: int = 0  # epochs without a better score before stopping; 0 = never
    monitor: Literal["balanced_accuracy", "accuracy", "macro_f1", "loss"] = "balanced_accuracy"  # what selects the best checkpoint
    threads: int = 0  # CPU threads a worker; 0 = the node's cores shared among its workers
    profile: bool = False  # write a trace of a few steps into the run folder (--profile)
    max_failures: int = 3  # dead workers survived before giving up


@dataclass(frozen=True)
class Config:
    name: str = "experiment"
    seed: int = 0
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    augment: Augment = field(default_factory=Augment)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)


def recipe_names() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in resources.files("animalclf.recipes").iterdir() if entry.name.endswith(".yaml"))


def load(recipe: str = "big_cnn", sets: typing.Sequence[str] = ()) -> Config:
    """The configuration of `recipe` (a name, or the path or s3:// URL of a YAML file) with each `key=value` of `sets` laid over it.

    Raises UserError for an unknown recipe or key (naming the nearest) and for a value of the wrong type or range.
    """
    if recipe in recipe_names():
        file = str(resources.files("animalclf.recipes").joinpath(f"{recipe}.yaml"))
    elif recipe.endswith((".yaml", ".yml")):
        file = recipe
    else:
        raise UserError(
            f"unknown recipe {recipe!r}{nearest(recipe, recipe_names())}; recipes: {', '.join(recipe_names())}, or the path of a .yaml file"
        )
    tree = read(file, "recipe file")
    for item in sets:
        key, value = assignment("--set", item)
        put(tree, key, value, f"--set {item}")
    return from_dict(tree)


def from_dict(tree: dict[str, Any]) -> Config:
    """A checked Config from plain data (a parsed recipe, or what `to_dict` gave)."""
    config = build(Config, tree)
    _check(config)
    return config


def data_from_dict(tree: dict[str, Any]) -> Data:
    """The Data settings that a prepared set keeps."""
    return typing.cast(Data, build(Data, tree, "data.", Config))


def to_yaml(config: Config) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def differences(old: Config, new: Config) -> list[str]:
    """`key: old -> new` for every key that differs, in the order of the tree."""
    before, after = flat(to_dict(old)), flat(to_dict(new))
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in after if before.get(key) != after.get(key)]


def _check(config: Config) -> None:
    """Ranges, so that a wrong value stops before any work."""
    data, model, augment, optim, train = config.data, config.model, config.augment, config.optim, config.train
    rules = [
        (
            "data.stored_size",
            data.stored_size >= model.input_size,
            f"{data.stored_size} is below model.input_size {model.input_size}; pictures are stored at least as large as the model's input",
        ),
        ("data.val", 0 <= data.val < 1 and data.val + data.test < 1, "the validation and test shares must leave pictures to train on"),
        ("data.test", 0 <= data.test < 1, "a share from 0 to below 1"),
        ("data.folds", data.folds == 0 or data.folds >= 2, "0 for none, or at least 2"),
        ("data.fold", 0 <= data.fold < max(data.folds, 1), f"a number from 0 to data.folds - 1 = {max(data.folds, 1) - 1}"),
        ("data.max_bad", 0 <= data.max_bad <= 1, "a share from 0 to 1"),
        ("data.limit", data.limit >= 0, "0 for all, or a number of pictures"),
        ("data.max_pixels", data.max_pixels > 0, "above 0"),
        ("model.input_size", model.input_size >= 32, "at least 32 pixels"),
        ("model.dropout", 0 <= model.dropout < 1, "from 0 to below 1"),
        ("model.batchnorm_momentum", 0 <= model.batchnorm_momentum < 1, "from 0 to below 1"),
        ("augment.rotation", 0 <= augment.rotation <= 180, "degrees from 0 to 180"),
        ("augment.shift", 0 <= augment.shift < 1, "a share from 0 to below 1"),
        ("augment.zoom", 0 < augment.zoom[0] <= augment.zoom[1], "two factors above 0, the smaller first"),
        ("augment.crop", 0 < augment.crop[0] <= augment.crop[1] <= 1, "two shares above 0 and up to 1, the smaller first"),
        ("augment.brightness", 0 <= augment.brightness <= 1, "from 0 to 1"),
        ("augment.contrast", 0 <= augment.contrast <= 1, "from 0 to 1"),
        ("augment.saturation", 0 <= augment.saturation <= 1, "from 0 to 1"),
        ("augment.erase", 0 <= augment.erase <= 1, "a share from 0 to 1"),
        ("augment.mixup", augment.mixup >= 0, "0 or more"),
        ("augment.cutmix", augment.cutmix >= 0, "0 or more"),
        ("optim.lr", optim.lr > 0, "above 0"),
        ("optim.weight_decay", optim.weight_decay >= 0, "0 or more"),
        ("optim.eps", optim.eps > 0, "above 0"),
        ("optim.warmup_epochs", 0 <= optim.warmup_epochs <= train.epochs, "from 0 to train.epochs"),
        ("optim.ema", 0 <= optim.ema < 1, "from 0 to below 1"),
        ("optim.clip_norm", optim.clip_norm >= 0, "0 or more"),
        ("optim.label_smoothing", 0 <= optim.label_smoothing < 1, "from 0 to below 1"),
        ("train.epochs", train.epochs >= 1, "at least 1"),
        ("train.batch_size", train.batch_size >= 1, "at least 1"),
        ("train.accumulate", train.accumulate >= 1, "at least 1"),
        ("train.patience", train.patience >= 0, "0 or more"),
        ("train.threads", train.threads >= 0, "0 or more"),
        ("train.max_failures", train.max_failures >= 0, "0 or more"),
    ]
    for key, holds, remedy in rules:
        if not holds:
            raise UserError(f"{key}: {remedy}")
