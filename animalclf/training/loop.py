"""The training loop: one training epoch, one validation pass. Plain PyTorch, in one process or on the ranks of an
initialised process group."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from animalclf.config import Config, Optim
from animalclf.data.loader import Batch
from animalclf.errors import UserError
from animalclf.training.distributed import RankContext, all_reduce
from animalclf.training.losses import LOSSES, Loss, log_loss_sum, weighted_sum
from animalclf.training.mixup import MixedBatch
from animalclf.training.optim import learning_rate, set_learning_rate
from animalclf.training.step_graphs import StepGraphs

# Stored images uint8 (N, S, S, 3) and their manifest rows int64 (N,) to the network's input.
DeviceAugment = Callable[[torch.Tensor, np.ndarray], torch.Tensor]
Mix = Callable[[torch.Tensor, torch.Tensor, int], MixedBatch]  # images, labels and the number of the step
MAX_WEIGHT = 1e18  # float32 cannot hold the square of a larger one
Progress = Callable[[int, float], None]  # images over all ranks so far, and seconds


@dataclass
class Clock:
    """Seconds and images of this rank's pass. `wait` (blocked on the input), `copy` (host to device, and augmentation
    there) and the steps add up to `total`. Input tasks spend `read` and `augment` in parallel."""

    read: float = 0.0
    augment: float = 0.0
    wait: float = 0.0
    copy: float = 0.0
    total: float = 0.0
    images: int = 0


def choose_bf16(precision: str, device: torch.device) -> bool:
    """Whether the step computes in bfloat16: with "bf16", and with "auto" on hardware where that is faster (see
    benchmarks/step.py)."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    capabilities = torch.cpu.get_capabilities()
    # AVX512-BF16 without AMX is twice as fast as fp32 on AMD, and no faster on Intel.
    is_intel = "Intel" in str(capabilities.get("cpu_name"))
    return bool(capabilities.get("amx_bf16") or (capabilities.get("avx512_bf16") and not is_intel))


def autocast(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager[object]:
    """The context of a forward pass: bfloat16 autocast, or nothing."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()


def on_device(
    batches: Iterable[Batch], device: torch.device, clock: Clock, augment: DeviceAugment | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(image, label) of each batch on `device`, with `augment(image, index)` applied there. On a GPU the copy is pinned
    and asynchronous, and the next batch is fetched while this one is computed. Adds the time of each part to
    `clock`."""
    iterator = iter(batches)

    def fetch() -> tuple[torch.Tensor, torch.Tensor] | None:
        started = time.perf_counter()
        batch = next(iterator, None)
        received = time.perf_counter()
        clock.wait += received - started
        if batch is None:
            return None
        if "seconds" in batch:
            read_seconds, augment_seconds = batch["seconds"].sum(0, dtype=np.float64)
            clock.read, clock.augment = clock.read + float(read_seconds), clock.augment + float(augment_seconds)
        image, label = to_tensor(batch["image"], device), to_tensor(batch["label"], device)
        if augment:
            image = augment(image, batch["index"])
        clock.images += len(label)
        clock.copy += time.perf_counter() - received
        return image, label

    next_batch = fetch()
    while next_batch is not None:
        current = next_batch
        if device.type == "cuda":  # the copy of the next batch overlaps the step that the caller is about to queue
            next_batch = fetch()
            yield current
        else:
            yield current
            next_batch = fetch()


def to_tensor(values: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """A batch's array (or tensor, which is on `device` already) as a read-only tensor on `device`."""
    if isinstance(values, torch.Tensor):
        return values
    with warnings.catch_warnings():
        # The arrays are read-only memory shared with the input tasks; nothing writes into a batch, so none is copied.
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
    before_step: Sequence[Callable[[], None]] = ()
    """Called between the backward pass and the optimizer; recorded in `graphs`."""
    after_step: Sequence[Callable[[], None]] = ()
    progress: Progress | None = None


@dataclass(frozen=True)
class TrainMetrics:
    """Means over the images of an epoch, over all ranks. The accuracy of mixed images counts the label of the larger
    part."""

    loss: float
    accuracy: float
    rows: int


def train_epoch(
    network: nn.Module, batches: Iterable[Batch], optimizer: torch.optim.Optimizer, settings: TrainPass
) -> tuple[TrainMetrics, Clock]:
    """One pass over `batches`, an optimizer step each. Returns the metrics over all ranks, and this rank's clock.

    Raises UserError if the loss becomes NaN or infinite.
    """
    network.train()
    train, optim, steps = settings.config.train, settings.config.optim, len(settings.step_sizes)
    device, loss = settings.ranks.device, LOSSES.get(train.loss)(settings.config)
    clock, bf16, started = Clock(), choose_bf16(train.precision, device), time.perf_counter()
    # Loss and correct predictions, read once at the end, so that no step waits for the GPU.
    sums = settings.graphs.sums.zero_() if settings.graphs else torch.zeros(2, dtype=torch.float64, device=device)

    def optimize(batch: MixedBatch, global_size: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        _forward_backward(network, batch, global_size, settings, loss, bf16, sums)
        for hook in settings.before_step:
            hook()
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
        raise divergence_error(optim, settings.epoch, "the training loss is NaN or infinite")
    clock.total = time.perf_counter() - started
    return TrainMetrics(total_loss / rows, correct / rows, int(rows)), clock


def divergence_error(optim: Optim, epoch: int, reason: str) -> UserError:
    """The error of a training that diverged. `epoch` is counted from 0."""
    clip = "" if optim.clip_norm else " or set optim.clip_norm=1"
    return UserError(
        f"diverged in epoch {epoch + 1} ({reason}); lower optim.lr (now {optim.lr:g}){clip}, and start a new run"
    )


def weights_diverged(network: nn.Module) -> bool:
    """Whether a trainable weight or a statistic of `network` is NaN or beyond MAX_WEIGHT."""
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    tensors = [
        tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point() and name not in frozen
    ]
    largest = torch._foreach_norm([tensor for tensor in tensors if tensor.numel()], float("inf"))
    return not bool((torch.stack(largest) <= MAX_WEIGHT).all())


def _forward_backward(
    network: nn.Module,
    batch: MixedBatch,
    global_size: int,
    settings: TrainPass,
    loss: Loss,
    bf16: bool,
    sums: torch.Tensor,
) -> None:
    """The gradients of one step, in micro-batches. Adds loss and correct predictions to `sums`, float64 (2,); does not
    wait for the GPU.

    The loss of a step is the mean over the *global* batch, so that the gradient is that of a single process even if
    some ranks have one image more.
    """
    world_size, weights = settings.ranks.world_size, settings.class_weights
    micro_batches = list(batch.micro_batches(settings.config.train.accumulate))
    for position, part in enumerate(micro_batches):
        last = position == len(micro_batches) - 1
        # Gradients are all-reduced once per step, with the last micro-batch.
        with contextlib.nullcontext() if last or world_size == 1 else network.no_sync():  # type: ignore[operator]
            with autocast(settings.ranks.device, bf16):
                logits = network(part.image)
            value = part.fraction * weighted_sum(loss(logits, part.label), part.label, weights)
            if part.partner_label is not None:
                partner_loss = weighted_sum(loss(logits, part.partner_label), part.partner_label, weights)
                value = value + (1 - part.fraction) * partner_loss
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


def check_row_count(name: str, seen: int, expected: int) -> None:
    """Raises RuntimeError unless a pass has seen every row of the manifest exactly once."""
    if seen != expected:
        raise RuntimeError(
            f"{seen} {name} rows were seen, the manifest has {expected}: this is a bug, please report it"
        )
