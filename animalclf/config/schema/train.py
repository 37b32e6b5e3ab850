"""The keys of `train.*`: the training loop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from animalclf.config.values import STRICT, Flag, Integer, Number, Registered, Text, TextList, as_text
from animalclf.metrics import epoch_metrics


@dataclass(frozen=True, config=STRICT)
class Train:
    """The training loop: length, batches, precision, checkpoint selection and failures."""

    epochs: Annotated[Integer, Field(ge=1)] = 110
    """Passes over the training split."""

    batch_size: Annotated[Integer, Field(ge=1)] = 128
    """Global batch size: images in one optimizer step, over all workers together. The result does not depend on how
    many workers share it (except through BatchNorm)."""

    accumulate: Annotated[Integer, Field(ge=1)] = 1
    """Gradient-accumulation steps: each worker computes its part of a batch in this many pieces. Raise it when memory
    runs out; the gradient stays the same (except through BatchNorm)."""

    heads: TextList = ()
    """Heads fitted to convergence on the features of a frozen base, in one epoch, instead of training one by gradient
    steps: logistic, lda, kernel_ridge; of several the mean of the log-probabilities. Their regularisation and a
    temperature come from cross-validation within the training images. A head for which the set is too large is left
    out (kernel_ridge above 5,000 images)."""

    head_start: Literal["random", "fitted"] = "random"
    """Initial weights of a head of one dense layer. fitted: logistic regression on the features of the base, before
    that is tuned (LP-FT, Kumar et al. 2022), with its regularisation from cross-validation within the training images.
    random: the network's own."""

    unfreeze_every: Annotated[Integer, Field(ge=0)] = 0
    """Gradual unfreezing (Howard, Ruder 2018): the head trains alone for this many epochs, then another block of the
    base joins each time they have passed, from the last one down. 0 trains all trainable layers from the start."""

    balance: Annotated[Literal["none", "class_weights", "sampling"], BeforeValidator(as_text)] = "none"
    """What to do about unequal classes. class_weights: weights the loss by n / (classes x n_class). sampling: draws
    each class equally often. none: nothing; `predict --prior` can still correct for other class frequencies."""

    loss: Text = "cross_entropy"
    """Training loss. cross_entropy: with optim.label_smoothing. focal: cross-entropy that weights hard images more (Lin
    et al. 2017). cosine: the cosine between logits and label (Barz, Denzler 2020), for training from scratch on up to
    about 200 images of a class. The validation loss is always the log loss, so that runs compare."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the forward and backward pass. bf16 takes half the memory and is faster on hardware that
    computes it natively; auto uses it there and fp32 elsewhere. Weights are always fp32. On a CPU, evaluation and
    prediction compute in fp32 unless this is bf16, so that a model gives the same on every machine."""

    channels_last: Flag = True
    """Compute convolutions in NHWC memory order, which is faster on most hardware. False computes in NCHW order, after
    a copy of each batch."""

    gradient_compression: Literal["none", "bf16"] = "none"
    """Number format in which the workers exchange gradients. bf16 sends half the bytes of fp32, with about three
    significant digits: for workers that wait for the network. It has no effect on one worker."""

    compile: Flag = False
    """Compile the model with torch.compile, even if train.compile_from does not ask for it. On a CPU it takes a
    minute or more at the start."""

    compile_from: Annotated[Integer, Field(ge=0)] = 1_000_000
    """Compile the model on GPUs in trainings of at least this many images over all epochs: in shorter ones the 10
    to 60 s of compilation do not pay off. 0 never compiles."""

    cuda_graphs: Flag = True
    """Start all kernels of a step by one call: on one GPU, with Adam or AdamW, without mixup and CutMix. Elsewhere it
    has no effect."""

    cache: Literal["auto", "memory", "disk"] = "auto"
    """Where the decoded images are cached for the epochs. memory: in Ray's object store. disk: on the nodes' local
    disks. auto: in memory if they fit."""

    cache_features: Flag = True
    """Store the features of a frozen base in the folder of the prepared set (features-*.npz), from where later runs,
    trials and folds with the same base and images read them."""

    cached_views: Annotated[Integer, Field(ge=0)] = 0
    """Train the last blocks on cached maps: the frozen layers below run once, over this many augmented views of each
    training image, and each epoch trains on the next view. For one worker and networks that are plain sequences of
    layers (vgg16, vgg16_pooled, efficientnet_lite0 to 2). mixup and CutMix then mix maps. 0 runs the frozen layers in
    every step."""

    patience: Annotated[Integer, Field(ge=0)] = 0
    """Stop after this many epochs without a better train.monitor. 0 never stops early."""

    monitor: Annotated[Text, Registered(lambda: [metric.key for metric in epoch_metrics()])] = "balanced_accuracy"
    """Validation metric that selects the best checkpoint (the loss by its minimum, accuracies by their maximum).
    balanced_accuracy counts every class alike, however rare."""

    folds: Annotated[Integer, Field(ge=0)] = 0
    """Number of cross-validation folds over the training and validation images, at least 2 (the flag --folds sets it):
    each fold is predicted by a training without it, and the metrics are of all images. The model is then trained on all
    images, to the last epoch. 0 trains once and measures on the validation split. data.folds only splits the images."""

    select: Literal["best", "last"] = "best"
    """Which epoch is the model. best: the one with the best train.monitor on the validation images, whose metrics are
    then optimistic and labelled so, or on those of train.select_fraction. last: the last one; validation chooses
    nothing."""

    select_fraction: Annotated[Number, Field(ge=0, le=0.5)] = 0.0
    """Fraction of the training images that does not train and, instead of the validation images, selects the epoch and
    stops the training (train.patience): validation is then measured once, after training. Rounded to one of a whole
    number of equal parts. 0 selects on the validation images."""

    threads: Annotated[Integer, Field(ge=0)] = 0
    """CPU threads of each worker. 0 divides the physical cores of the node among its workers."""

    profile: Flag = False
    """Write a trace of a few steps into the run folder, to open with ui.perfetto.dev (the flag --profile sets it)."""

    max_failures: Annotated[Integer, Field(ge=0)] = 3
    """How many times workers are restarted after one has died, each time from the last finished epoch, before the run
    fails."""
