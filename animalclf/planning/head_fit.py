"""How long fitted heads take on all training images, and how large they become: measured on features drawn around those
of a sample, and extrapolated where there are more images than can be fitted in seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from animalclf.data.prepared_set import Prepared
from animalclf.features.fitting import fit_head
from animalclf.features.folds import deal_folds
from animalclf.features.heads import HEADS, TrainingSet
from animalclf.models.fitted_heads import count_numbers, module_of
from animalclf.planning.network import sample_features
from animalclf.planning.sample import SampleTask
from animalclf.rows import Measured
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.training.distributed import set_up_cpu
from animalclf.training.fitted_heads import INNER_FOLDS

SIZES = (400, 800)  # images of the fits, if there are more
MAX_EXPONENT = 3.0  # of the seconds over the images: an eigendecomposition


def measure(measured: Measured, task: SampleTask, prepared: Prepared, run: Run) -> Measured:
    """`measured` with the time of the fit, and with parameters and checkpoints as they are with heads that are fitted
    on `task.train_counts` training images of each class. The first fit of the rehearsal, beside its own time, is the
    start of the libraries."""
    counts, kinds = task.train_counts, task.config.train.heads
    images, features = sum(counts), sample_features(prepared.root)
    set_up_cpu(task.config.train.threads, task.workers_per_node)
    usable = [kind for kind in kinds if HEADS.get(kind).fits(images, len(counts))]
    sizes = sorted({min(images, size) for size in SIZES})
    seconds, numbers, sample = 0.0, 0.0, len(prepared.rows("train"))
    rehearsed = run.metrics()[0].train_seconds
    with threadpool_limits(torch.get_num_threads()):
        for kind in usable:
            for _ in range(2):  # the first starts the libraries
                again = _fit(kind, *_training_set(features, counts, sample), len(counts))[0]
            rehearsed -= again
            fits = [_fit(kind, *_training_set(features, counts, size), len(counts)) for size in sizes]
            seconds += _power_law(sizes, [fit[0] for fit in fits], images)
            numbers += _line(sizes, [fit[1] for fit in fits], images)
    added = round(numbers) - sum(tensor.numel() for tensor in _head_tensors(run))
    return replace(
        measured,
        parameters=measured.parameters + round(numbers),
        trainable=round(numbers),
        fit_seconds=seconds,
        fixed={**measured.fixed, "heads": max(0.0, rehearsed)},
        best_bytes=measured.best_bytes + 4 * added,
        last_bytes=measured.last_bytes + 4 * added,
    )


def _head_tensors(run: Run) -> list[torch.Tensor]:
    """Of the heads that were fitted on the sample."""
    state = checkpoint.load(run.checkpoint("best"))["model"]
    return [value for name, value in state.items() if name.startswith("head.")]


def _training_set(features: np.ndarray, counts: Sequence[int], size: int) -> tuple[TrainingSet, np.ndarray]:
    """`size` images in the proportions of `counts`, each class around the features of an image of the sample; and the
    classes among them, int64."""
    generator = np.random.default_rng(0)
    flat = features.astype(np.float64)
    fractions = np.asarray(counts, np.float64) / sum(counts)
    labels = np.sort(generator.choice(len(counts), size, p=fractions))
    labels[:2] = np.flatnonzero(fractions)[:2]  # at least two classes
    present, labels = np.unique(labels, return_inverse=True)
    noise = generator.normal(0, 1, (size, flat.shape[1])) * flat.std(0)
    return TrainingSet(flat[present[labels] % len(flat)] + noise, labels, np.ones(size), len(present)), present


def _fit(kind: str, training: TrainingSet, present: np.ndarray, classes: int) -> tuple[float, int]:
    """Seconds of a fit, and the numbers of the head for `classes` classes."""
    folds = deal_folds(training.labels, np.arange(len(training.labels)), INNER_FOLDS, 0)
    started = time.perf_counter()
    head = fit_head(kind, training, folds)
    seconds = time.perf_counter() - started
    return seconds, count_numbers(module_of([head], present, classes))


def _power_law(sizes: Sequence[int], seconds: Sequence[float], size: int) -> float:
    """Seconds at `size`, extrapolated as a power of it, at least in proportion."""
    if size == sizes[-1]:
        return seconds[-1]
    exponent = np.log(seconds[-1] / seconds[0]) / np.log(sizes[-1] / sizes[0])
    return float(seconds[-1] * (size / sizes[-1]) ** np.clip(exponent, 1.0, MAX_EXPONENT))


def _line(sizes: Sequence[int], numbers: Sequence[int], size: int) -> float:
    if len(sizes) == 1:
        return numbers[-1]
    slope = (numbers[-1] - numbers[0]) / (sizes[-1] - sizes[0])
    return numbers[-1] + slope * (size - sizes[-1])
