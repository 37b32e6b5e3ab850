"""The training loop: one epoch, one validation. Plain PyTorch, on one process or on the ranks of an initialised process group."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from animalclf.config import Optim, Train
from animalclf.data.feed import Batch
from animalclf.errors import UserError
from animalclf.training.optim import learning_rate
from animalclf.training.ranks import Place, all_reduce


@dataclass
class Clock:
    """Where the time of a pass went, in seconds, and the pictures of this rank."""

    wait: float = 0.0
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


def on_device(batches: Iterable[Batch], device: torch.device, clock: Clock) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(image, label) on `device`. On a GPU the copy is pinned and asynchronous and the next batch is fetched while this one is computed;
    the time blocked on the input is added to `clock.wait`."""

    def fetch(iterator: Iterator[Batch]) -> tuple[torch.Tensor, torch.Tensor] | None:
        started = time.perf_counter()
        batch = next(iterator, None)
        clock.wait += time.perf_counter() - started
        if batch is None:
            return None
        # The arrays lie read-only in shared memory; torch wants its own.
        image, label = torch.from_numpy(np.array(batch["image"])), torch.from_numpy(np.array(batch["label"]))
        clock.pictures += len(label)
        if device.type == "cuda":
            return image.pin_memory().to(device, non_blocking=True), label.pin_memory().to(device, non_blocking=True)
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
    after_step: Callable[[], None] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> dict[str, float]:
    """One pass over `batches`, an optimizer step each. `step_sizes`: pictures of each step over all ranks, int64 (steps,).

    The loss of a step is the mean over the *global* batch (class weights multiply a picture's loss, as Keras's class_weight does), so ranks with
    one picture more count right and the gradient is that of a single process. Returns sums over all ranks: loss, accuracy, rows,
    and this rank's wait and total seconds. Raises UserError where the loss is no longer a number.
    """
    network.train()
    device, world = place.device, place.world
    clock, bf16, started = Clock(), choose_bf16(train.precision, device), time.perf_counter()
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, rows; read once, at the end: no synchronisation in a step
    step = -1
    for step, (image, label) in enumerate(on_device(batches, device, clock)):
        rate = learning_rate(spec, epoch * len(step_sizes) + step, len(step_sizes), train.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        pieces = list(zip(image.tensor_split(train.accumulate), label.tensor_split(train.accumulate), strict=True))
        for position, (piece, target) in enumerate(pieces):
            last = position == len(pieces) - 1
            # Gradients travel once a step, with the last piece.
            quiet = contextlib.nullcontext() if last or world == 1 else network.no_sync()  # type: ignore[operator]
            with quiet:
                with autocast(device, bf16):
                    logits = network(piece)
                losses = F.cross_entropy(logits, target, reduction="none", label_smoothing=spec.label_smoothing)
                weighted = losses if class_weights is None else losses * class_weights[target]
                (weighted.sum() * (world / int(step_sizes[step]))).backward()
            with torch.no_grad():
                sums += torch.stack([weighted.sum(), (logits.argmax(1) == target).sum(), torch.tensor(len(target), device=device)]).double()
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
    loss, correct, rows = sums.tolist()
    if not np.isfinite(loss):
        raise UserError(f"the training loss is no longer a number in epoch {epoch + 1}; lower optim.lr (now {spec.lr:g}) or set optim.clip_norm=1")
    clock.total = time.perf_counter() - started
    return {"loss": loss / rows, "accuracy": correct / rows, "rows": rows, "wait": clock.wait, "seconds": clock.total}


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
