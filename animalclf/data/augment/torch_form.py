"""Training and evaluation views of uint8 batches on the training device. Plain PyTorch.

The images equal those of `numpy_form.py` up to the rounding of OpenCV's fixed-point interpolation (tests/test_device.py
has the bounds).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from animalclf.config import Augment
from animalclf.data.augment.compose import GREY, ColourMap, compose, is_identity
from animalclf.data.augment.operation import Samples


def on_device(choice: str, device: torch.device) -> bool:
    """True if `augment.on` means the training device: "device", or "auto" on a GPU."""
    return choice == "device" or (choice == "auto" and device.type == "cuda")


def augment_batch(
    images: torch.Tensor, index: np.ndarray, augment: Augment, seed: int, epoch: int, input_size: int
) -> torch.Tensor:
    """As `numpy_form.augment_batch`: uint8 (N, S, S, 3) to uint8 (N, input_size, input_size, 3)."""
    if is_identity(augment):
        return evaluation_view(images, input_size)
    view = compose(Samples(augment, seed, epoch, index, input_size), images.shape[1])
    out = apply_colour(warp(images, to_device(view.warp.astype(np.float32), images.device), input_size), view.colour)
    for operation, parameters in view.filters:
        out = operation.apply_torch(out, to_device(parameters, images.device))
    return out


def warp(images: torch.Tensor, affine: torch.Tensor, size: int) -> torch.Tensor:
    """As `numpy_form.warp`: uint8 (N, S, S, 3) through matrices float32 (N, 2, 3) to uint8 (N, size, size, 3)."""
    if images.device.type == "cuda" and (kernel := _warp_kernel()):
        return kernel(images, affine, size)
    steps = torch.arange(size, dtype=torch.float32, device=images.device)
    x, y = torch.meshgrid(steps, steps, indexing="xy")
    # (N, size * size, 2): x and y in stored pixels
    positions = torch.stack([x, y, torch.ones_like(x)], -1).view(-1, 3) @ affine.transpose(1, 2)
    grid = (positions * (2 / (images.shape[1] - 1)) - 1).view(-1, size, size, 2)
    pixels = images.permute(0, 3, 1, 2).float()
    warped = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return warped.permute(0, 2, 3, 1).round().to(torch.uint8)


@functools.cache
def _warp_kernel() -> Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor] | None:
    """One kernel instead of seven, ten times as fast. None if Triton is not installed."""
    try:
        from animalclf.data.augment import warp_kernel
    except ImportError:
        return None
    return warp_kernel.warp


def apply_colour(images: torch.Tensor, colour: ColourMap) -> torch.Tensor:
    """As `numpy_form.apply_colour`, but returns the images uint8 (N, S, S, 3)."""
    device = images.device
    if colour.matrix is not None:
        matrix = to_device(colour.matrix, device)
        pixels = images.float().flatten(1, 2) @ matrix[:, :, :3].transpose(1, 2) + matrix[:, None, :, 3]
        images = pixels.round().clamp(0, 255).to(torch.uint8).view_as(images)
    if colour.table is not None:
        table = to_device(colour.table, device)
        images = table.gather(1, images.flatten(1).long()).view_as(images)
    if colour.box is not None:
        box, steps = to_device(colour.box, device)[:, :, None], torch.arange(images.shape[1], device=device)
        within_x, within_y = (steps >= box[:, 0]) & (steps < box[:, 2]), (steps >= box[:, 1]) & (steps < box[:, 3])
        images = images.masked_fill((within_y[:, :, None] & within_x[:, None, :])[..., None], GREY)
    return images


def evaluation_view(images: torch.Tensor, size: int) -> torch.Tensor:
    """As `numpy_form.evaluation_view`: uint8 (N, S, S, 3) averaged over areas to uint8 (N, size, size, 3)."""
    stored = images.shape[1]
    if stored == size:
        return images
    weights = _area_weights_on(images.device, stored, size)
    pixels = images.permute(0, 3, 1, 2).float()
    return (weights @ pixels @ weights.T).permute(0, 2, 3, 1).round().to(torch.uint8)


@functools.lru_cache(maxsize=8)
def _area_weights_on(device: torch.device, stored: int, size: int) -> torch.Tensor:
    return torch.from_numpy(_area_weights(stored, size)).to(device)


def _area_weights(stored: int, size: int) -> np.ndarray:
    """float32 (size, stored): the weight of each stored pixel of a row in each pixel of the smaller row, by their
    common length."""
    edges = np.arange(size + 1) * stored / size
    low, high = np.maximum(edges[:-1, None], np.arange(stored)), np.minimum(edges[1:, None], np.arange(1, stored + 1))
    return (np.maximum(high - low, 0) * size / stored).astype(np.float32)


def to_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """`values` on `device`: copied asynchronously from pinned memory to a GPU, shared with the array on the CPU."""
    if device.type != "cuda":
        return torch.from_numpy(values)
    if values.nbytes <= Staging.BYTES:
        return _staging(device).upload(values)
    return torch.from_numpy(values).pin_memory().to(device, non_blocking=True)


class Staging:
    """Pinned memory slots for small host-to-device copies, used in turn. Pinning each array would take longer than its
    copy, most of all when many steps are queued and no pinned memory is free."""

    SLOTS, BYTES = 128, 2**16

    def __init__(self, device: torch.device) -> None:
        self.device, self.number = device, 0
        self.memory = torch.empty(self.SLOTS, self.BYTES, dtype=torch.uint8, pin_memory=True)
        self.copy_events: list[torch.cuda.Event | None] = [None] * self.SLOTS

    def upload(self, values: np.ndarray) -> torch.Tensor:
        """`values` on the device, for work that is queued on the current stream from now on."""
        slot, self.number = self.number % self.SLOTS, self.number + 1
        if event := self.copy_events[slot]:
            event.synchronize()
        source = torch.from_numpy(np.ascontiguousarray(values))
        pinned = self.memory[slot, : source.nbytes].view(source.dtype).view(source.shape)
        pinned.copy_(source)
        target = pinned.to(self.device, non_blocking=True)
        self.copy_events[slot] = event = torch.cuda.Event()
        event.record()
        return target


@functools.cache
def _staging(device: torch.device) -> Staging:
    return Staging(device)
