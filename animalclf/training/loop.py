"""The training loop: one epoch, one validation. Plain PyTorch, on one process or on the ranks of an initialised process
group."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from animalclf.config import Config
from animalclf.data.loader import Batch
from animalclf.errors import UserError
from animalclf.training.distributed import RankContext, all_reduce
from animalclf.training.losses import LOSSES, Loss, log_loss_sum, weighted_sum
from animalclf.training.lr_schedules import learning_rate
from animalclf.training.mixup import MixedBatch
from animalclf.training.optim import set_learning_rate
from animalclf.training.step_graphs import StepGraphs

DeviceAugment = Callable[
    [torch.Tensor, np.ndarray], torch.Tensor
]  # stored images and their manifest rows to the network's input
Mix = Callable[[torch.Tensor, torch.Tensor, int], MixedBatch]  # images, labels and the step's number
Progress = Callable[[int, float], None]  # images over all ranks so far, and seconds


@dataclass
class Clock:
    """Time of this rank's pass in seconds, and its images. `read` and `augment` are spent by input tasks beside the
    steps; `wait` (blocked on the input) and `copy` (host to device, and augmentation there) are part of `total`, the
    rest of which is the steps."""

    read: float = 0.0
    augment: float = 0.0
    wait: float = 0.0
    copy: float = 0.0
    total: float = 0.0
    images: int = 0


def choose_bf16(precision: str, device: torch.device) -> bool:
    """True where the step computes in bfloat16: asked for, or "auto" on hardware where that is faster (see
    benchmarks/step.py)."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    abilities = torch.cpu.get_capabilities()
    # Intel's AVX512-BF16 without AMX multiplies no faster than fp32; AMD's does so twice as fast.
    return bool(
        abilities.get("amx_bf16") or (abilities.get("avx512_bf16") and "Intel" not in str(abilities.get("cpu_name")))
    )


def autocast(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()


def on_device(
    batches: Iterable[Batch], device: torch.device, clock: Clock, augment: DeviceAugment | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(image, label) on `device`. On a GPU the copy is pinned and asynchronous and the next batch is fetched while this
    one is computed. `augment(image, index)` is applied there. The time that each part takes is added to `clock`."""

    def fetch(iterator: Iterator[Batch]) -> tuple[torch.Tensor, torch.Tensor] | None:
        started = time.perf_counter()
        batch = next(iterator, None)
        arrived = time.perf_counter()
        clock.wait += arrived - started
        if batch is None:
            return None
        if "seconds" in batch:
            read_seconds, augment_seconds = batch["seconds"].sum(0, dtype=np.float64)
            clock.read, clock.augment = clock.read + float(read_seconds), clock.augment + float(augment_seconds)
        image, label = moved(batch["image"], device), moved(batch["label"], device)
        if augment:
            image = augment(image, batch["index"])
        clock.images += len(label)
        clock.copy += time.perf_counter() - arrived
        return image, label

    iterator = iter(batches)
    ahead = fetch(iterator)
    while ahead is not None:
        current = ahead
        if device.type == "cuda":  # the copy of the next batch overlaps the step that the caller is about to queue
            ahead = fetch(iterator)
            yield current
        else:
            yield current
            ahead = fetch(iterator)


def moved(values: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """A batch's array (or tensor, on the device already) as a tensor on `device`. It must not be written into."""
    if isinstance(values, torch.Tensor):  # on the device already
        return values
    with warnings.catch_warnings():
        # The arrays lie read-only in the memory that they share with the input tasks, and nobody writes into a batch: no copy is needed.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


@dataclass(frozen=True, eq=False)
class TrainPass:
    """How the steps of one epoch are computed on this rank."""

    config: Config
    epoch: int
    """Counted from 0."""
    step_sizes: np.ndarray
    """Images of each step over all ranks, int64 (steps,)."""
    ranks: RankContext = field(default_factory=RankContext)
    class_weights: torch.Tensor | None = None
    """float32 (classes,)."""
    augment: DeviceAugment | None = None
    mix: Mix | None = None
    graphs: StepGraphs | None = None
    """Runs the steps as CUDA graphs: one process, no `mix`, and the same settings in every epoch."""
    after_step: Sequence[Callable[[], None]] = ()
    progress: Progress | None = None


@dataclass(frozen=True)
class TrainMetrics:
    """Means over the images of an epoch, over all ranks. The accuracy of mixed images is by the label of the larger
    part."""

    loss: float
    accuracy: float
    rows: int


def train_epoch(
    network: nn.Module, batches: Iterable[Batch], optimizer: torch.optim.Optimizer, settings: TrainPass
) -> tuple[TrainMetrics, Clock]:
    """One pass over `batches`, an optimizer step each. Returns the metrics over all ranks, and this rank's clock.

    Raises UserError where the loss is no longer a number.
    """
    network.train()
    train, optim, steps = settings.config.train, settings.config.optim, len(settings.step_sizes)
    device, loss = settings.ranks.device, LOSSES.get(train.loss)(settings.config)
    clock, bf16, started = Clock(), choose_bf16(train.precision, device), time.perf_counter()
    sums = (
        settings.graphs.sums.zero_() if settings.graphs else torch.zeros(2, dtype=torch.float64, device=device)
    )  # read at the end alone

    def optimize(batch: MixedBatch, global_size: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        _forward_backward(network, batch, global_size, settings, loss, bf16, sums)
        if optim.clip_norm:
            nn.utils.clip_grad_norm_(network.parameters(), optim.clip_norm)
        optimizer.step()

    step = -1
    for step, (image, label) in enumerate(on_device(batches, device, clock, settings.augment)):
        set_learning_rate(optimizer, learning_rate(optim, settings.epoch * steps + step, steps, train.epochs))
        if settings.graphs:
            settings.graphs.run(lambda image, label: optimize(MixedBatch(image, label), len(label)), image, label)
        else:
            optimize(
                settings.mix(image, label, step) if settings.mix else MixedBatch(image, label),
                int(settings.step_sizes[step]),
            )
        for hook in settings.after_step:
            hook()
        if settings.progress:
            settings.progress(clock.images * settings.ranks.world_size, time.perf_counter() - started)
    if step + 1 != steps:
        raise RuntimeError(
            f"epoch {settings.epoch} gave {step + 1} steps, the plan has {steps}: this is a bug, please report it"
        )
    totals = torch.cat([sums, sums.new_tensor([clock.images])])
    all_reduce(totals)
    total_loss, correct, rows = totals.tolist()
    if not np.isfinite(total_loss):
        remedy = f"lower optim.lr (now {optim.lr:g}) or set optim.clip_norm=1"
        raise UserError(f"the training loss is no longer a number in epoch {settings.epoch + 1}; {remedy}")
    clock.total = time.perf_counter() - started
    return TrainMetrics(total_loss / rows, correct / rows, int(rows)), clock


def _forward_backward(
    network: nn.Module,
    batch: MixedBatch,
    global_size: int,
    settings: TrainPass,
    loss: Loss,
    bf16: bool,
    sums: torch.Tensor,
) -> None:
    """The gradients of one step, in micro-batches; adds loss and correct predictions to `sums`, float64 (2,). On a GPU nothing here
    waits for it.

    The loss of a step is the mean over the *global* batch, so ranks with one image more count right and the gradient is
    that of a single process.
    """
    world_size, weights = settings.ranks.world_size, settings.class_weights
    micro_batches = list(batch.micro_batches(settings.config.train.accumulate))
    for position, part in enumerate(micro_batches):
        last = position == len(micro_batches) - 1
        # Gradients are all-reduced once a step, with the last micro-batch.
        with contextlib.nullcontext() if last or world_size == 1 else network.no_sync():  # type: ignore[operator]
            with autocast(settings.ranks.device, bf16):
                logits = network(part.image)
            value = part.fraction * weighted_sum(loss(logits, part.label), part.label, weights)
            if part.other is not None:
                value = value + (1 - part.fraction) * weighted_sum(loss(logits, part.other), part.other, weights)
            (value * (world_size / global_size)).backward()
        with torch.no_grad():
            sums += torch.stack([value, (logits.argmax(1) == part.label).sum()]).double()


@torch.no_grad()
def validate(
    network: nn.Module,
    batches: Iterable[Batch],
    classes: int,
    *,
    device: torch.device,
    bf16: bool,
    progress: Progress | None = None,
) -> tuple[np.ndarray, float]:
    """Confusion matrix int64 (classes, classes), rows = true class, and the summed log loss, over all ranks: each row
    counts once.

    No collective runs inside the pass, so ranks may have different numbers of batches.
    """
    network.eval()
    clock, started = Clock(), time.perf_counter()
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)
    loss = torch.zeros(1, dtype=torch.float64, device=device)
    for image, label in on_device(batches, device, clock):
        with autocast(device, bf16):
            logits = network(image)
        loss += log_loss_sum(logits, label).double()
        confusion += torch.bincount(label * classes + logits.argmax(1), minlength=classes * classes)
        if progress:
            progress(clock.images, time.perf_counter() - started)
    all_reduce(confusion)
    all_reduce(loss)
    return confusion.view(classes, classes).cpu().numpy(), float(loss.item())


def same_count(name: str, seen: int, expected: int) -> None:
    """Raise RuntimeError unless every row of the manifest was seen exactly once."""
    if seen != expected:
        raise RuntimeError(
            f"{seen} {name} rows were seen, the manifest has {expected}: this is a bug, please report it"
        )
