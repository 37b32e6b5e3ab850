"""The training loop: one epoch, one validation. Plain PyTorch, on one process or on the ranks of an initialised process group."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from animalclf.config import Optim, Train
from animalclf.data.loader import Batch
from animalclf.errors import UserError
from animalclf.training.distributed import Place, all_reduce
from animalclf.training.mixup import Mixed
from animalclf.training.optim import learning_rate

View = Callable[[torch.Tensor, np.ndarray], torch.Tensor]


@dataclass
class Clock:
    """Where the time of this rank's pass went, in seconds, and its pictures. `read` and `augment` are spent by input tasks beside the steps;
    `wait` (blocked on the input) and `handover` (copies to the device) are part of `total`, the rest of which is the steps."""

    read: float = 0.0
    augment: float = 0.0
    wait: float = 0.0
    handover: float = 0.0
    total: float = 0.0
    pictures: int = 0


def choose_bf16(precision: str, device: torch.device) -> bool:
    """True where the step computes in bfloat16: asked for, or "auto" on hardware where that is faster (see benchmarks/step.py)."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    abilities = torch.cpu.get_capabilities()
    # Intel's AVX512-BF16 without AMX multiplies no faster than fp32; AMD's does so twice as fast.
    return bool(abilities.get("amx_bf16") or (abilities.get("avx512_bf16") and "Intel" not in str(abilities.get("cpu_name"))))


def autocast(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()


def on_device(batches: Iterable[Batch], device: torch.device, clock: Clock, view: View | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(image, label) on `device`. On a GPU the copy is pinned and asynchronous and the next batch is fetched while this one is computed.
    `view(image, index)` is what the device then makes of the stored pictures. The time that each part takes is added to `clock`."""

    def fetch(iterator: Iterator[Batch]) -> tuple[torch.Tensor, torch.Tensor] | None:
        started = time.perf_counter()
        batch = next(iterator, None)
        arrived = time.perf_counter()
        clock.wait += arrived - started
        if batch is None:
            return None
        if "seconds" in batch:
            read, augment = batch["seconds"].sum(0, dtype=np.float64)
            clock.read, clock.augment = clock.read + float(read), clock.augment + float(augment)
        image, label = moved(batch["image"], device), moved(batch["label"], device)
        if view:
            image = view(image, batch["index"])
        clock.pictures += len(label)
        clock.handover += time.perf_counter() - arrived
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


def train_epoch(
    network: nn.Module,
    batches: Iterable[Batch],
    step_sizes: np.ndarray,
    optimizer: torch.optim.Optimizer,
    spec: Optim,
    train: Train,
    epoch: int,
    *,
    place: Place,
    class_weights: torch.Tensor | None = None,
    view: View | None = None,
    mix: Callable[[torch.Tensor, torch.Tensor, int], Mixed] | None = None,
    after_step: Callable[[], None] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[dict[str, float], Clock]:
    """One pass over `batches`, an optimizer step each. `step_sizes`: pictures of each step over all ranks, int64 (steps,).

    The loss of a step is the mean over the *global* batch (class weights multiply a picture's loss, as Keras's class_weight does), so ranks with
    one picture more count right and the gradient is that of a single process. `view` augments on the device, `mix` is mixup or CutMix.
    Returns loss, accuracy (of mixed pictures: by the label of the larger share) and rows over all ranks, and this rank's clock.
    Raises UserError where the loss is no longer a number.
    """
    network.train()
    device, world = place.device, place.world
    clock, bf16, started = Clock(), choose_bf16(train.precision, device), time.perf_counter()
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, rows; read once, at the end: no synchronisation in a step
    step = -1
    for step, (image, label) in enumerate(on_device(batches, device, clock, view)):
        rate = learning_rate(spec, epoch * len(step_sizes) + step, len(step_sizes), train.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        mixed = mix(image, label, step) if mix else Mixed(image, label, None, 1.0)
        pieces = list(_pieces(mixed, train.accumulate))
        for position, piece in enumerate(pieces):
            last = position == len(pieces) - 1
            # Gradients travel once a step, with the last piece.
            quiet = contextlib.nullcontext() if last or world == 1 else network.no_sync()  # type: ignore[operator]
            with quiet:
                with autocast(device, bf16):
                    logits = network(piece.image)
                loss = piece.share * _loss(logits, piece.label, class_weights, spec.label_smoothing)
                if piece.other is not None:
                    loss = loss + (1 - piece.share) * _loss(logits, piece.other, class_weights, spec.label_smoothing)
                (loss * (world / int(step_sizes[step]))).backward()
            with torch.no_grad():
                rows = torch.tensor(len(piece.label), device=device)
                sums += torch.stack([loss, (logits.argmax(1) == piece.label).sum(), rows]).double()
        if spec.clip_norm:
            nn.utils.clip_grad_norm_(network.parameters(), spec.clip_norm)
        optimizer.step()
        if after_step:
            after_step()
        if progress:
            progress(clock.pictures * world, time.perf_counter() - started)
    if step + 1 != len(step_sizes):
        raise RuntimeError(f"epoch {epoch} gave {step + 1} steps, the plan has {len(step_sizes)}: this is a bug, please report it")
    all_reduce(sums)
    total_loss, correct, seen = sums.tolist()
    if not np.isfinite(total_loss):
        raise UserError(f"the training loss is no longer a number in epoch {epoch + 1}; lower optim.lr (now {spec.lr:g}) or set optim.clip_norm=1")
    clock.total = time.perf_counter() - started
    return {"loss": total_loss / seen, "accuracy": correct / seen, "rows": seen}, clock


def _loss(logits: torch.Tensor, target: torch.Tensor, class_weights: torch.Tensor | None, smoothing: float) -> torch.Tensor:
    """Summed cross-entropy, a picture's multiplied by the weight of its class."""
    losses = F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)
    return (losses if class_weights is None else losses * class_weights[target]).sum()


def _pieces(mixed: Mixed, count: int) -> Iterator[Mixed]:
    others = mixed.other.tensor_split(count) if mixed.other is not None else [None] * count
    for image, label, other in zip(mixed.image.tensor_split(count), mixed.label.tensor_split(count), others, strict=True):
        yield Mixed(image, label, other, mixed.share)


@torch.no_grad()
def validate(
    network: nn.Module,
    batches: Iterable[Batch],
    classes: int,
    *,
    device: torch.device,
    bf16: bool,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[np.ndarray, float]:
    """Confusion matrix int64 (classes, classes), rows = true class, and the summed cross-entropy, over all ranks: each row counts once.

    No collective runs inside the pass, so ranks may have different numbers of batches.
    """
    network.eval()
    clock, started = Clock(), time.perf_counter()
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)
    loss = torch.zeros(1, dtype=torch.float64, device=device)
    for image, label in on_device(batches, device, clock):
        with autocast(device, bf16):
            logits = network(image)
        loss += F.cross_entropy(logits, label, reduction="sum").double()
        confusion += torch.bincount(label * classes + logits.argmax(1), minlength=classes * classes)
        if progress:
            progress(clock.pictures, time.perf_counter() - started)
    all_reduce(confusion)
    all_reduce(loss)
    return confusion.view(classes, classes).cpu().numpy(), float(loss.item())


def same_count(what: str, seen: int, planned: int) -> None:
    """Raise RuntimeError unless every planned row was seen exactly once."""
    if seen != planned:
        raise RuntimeError(f"{seen} {what} rows were seen, the manifest has {planned}: this is a bug, please report it")
