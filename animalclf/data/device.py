"""Augmentation on the training device: the parameters of data/augment.py, applied with torch to whole batches. Plain PyTorch.

The pictures are those that OpenCV makes, within the rounding of its fixed-point interpolation (tests/test_device.py says how far).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from animalclf.config import Augment
from animalclf.data import colour
from animalclf.data.augment import is_identity, look, matrices
from animalclf.data.loader import Batch, Phase, Pictures, Schedule

LOADED = 1024  # pictures that are copied to the device at once


def on_device(choice: str, device: torch.device) -> bool:
    """True where `augment.on` means the training device: asked for, or "auto" and the device is a GPU."""
    return choice == "device" or (choice == "auto" and device.type == "cuda")


class DeviceFeed:
    """Batches from a prepared set that lies whole in the training device's memory: nothing is read, moved or waited for after the start."""

    def __init__(self, schedule: Schedule, pictures: Pictures, device: torch.device, rank: int = 0, world: int = 1) -> None:
        self.schedule, self.rank, self.world = schedule, rank, world
        rows = np.concatenate(list(schedule.rows.values()))
        self.position = np.full(len(schedule.labels), -1, np.int64)
        self.position[rows] = np.arange(len(rows))
        parts = [torch.from_numpy(np.stack(pictures.views(rows[first : first + LOADED]))).to(device) for first in range(0, len(rows), LOADED)]
        self.pictures = torch.cat(parts) if parts else torch.empty(0, device=device)

    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]:
        """As `MemoryFeed.batches`, with "image" on the device: stored pictures in training, whole views otherwise."""
        for index in self.schedule.batch_rows(phase, epoch, self.rank, self.world):
            if len(index):
                image = self.pictures[_to(self.position[index], self.pictures.device)]
                if not (phase == "train" and self.schedule.augment_later):
                    image = evaluation_view(image, self.schedule.input_size)
                yield {"image": image, "label": self.schedule.labels[index], "index": index}  # type: ignore[dict-item]


def fits(schedule: Schedule, picture_bytes: int, device: torch.device) -> bool:
    """True where the schedule's pictures take up less than half of what a GPU has free, and no training batch is augmented elsewhere."""
    if device.type != "cuda" or not (schedule.augment_later or is_identity(schedule.augment)):
        return False
    return sum(map(len, schedule.rows.values())) * picture_bytes * 2 < torch.cuda.mem_get_info(device)[0]


def augment_batch(images: torch.Tensor, index: np.ndarray, schedule: Schedule, epoch: int) -> torch.Tensor:
    """The training view of stored pictures uint8 (N, S, S, 3) with manifest rows `index` int64 (N,): uint8 (N, input, input, 3), same device."""
    augment, size = schedule.augment, schedule.input_size
    if is_identity(augment):
        return evaluation_view(images, size)
    affine = _to(matrices(augment, schedule.seed, epoch, index, images.shape[1], size).astype(np.float32), images.device)
    out = warp(images, affine, size)
    return _colours(out, look(augment, schedule.seed, epoch, index, size)) if _coloured(augment) else out


def _coloured(augment: Augment) -> bool:
    return colour.wanted(augment) or augment.trivial


def warp(images: torch.Tensor, affine: torch.Tensor, size: int) -> torch.Tensor:
    """As `augment.warp`: uint8 (N, S, S, 3) through matrices float32 (N, 2, 3) to uint8 (N, size, size, 3)."""
    steps = torch.arange(size, dtype=torch.float32, device=images.device)
    x, y = torch.meshgrid(steps, steps, indexing="xy")
    places = torch.stack([x, y, torch.ones_like(x)], -1).view(-1, 3) @ affine.transpose(1, 2)  # (N, size * size, 2) in stored pixels
    grid = (places * (2 / (images.shape[1] - 1)) - 1).view(-1, size, size, 2)
    pixels = images.permute(0, 3, 1, 2).float()
    warped = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return warped.permute(0, 2, 3, 1).round().to(torch.uint8)


def _colours(images: torch.Tensor, look: colour.Look) -> torch.Tensor:
    device = images.device
    if look.matrix is not None:
        matrix = _to(look.matrix, device)
        pixels = images.float().flatten(1, 2) @ matrix[:, :, :3].transpose(1, 2) + matrix[:, None, :, 3]
        images = pixels.round().clamp(0, 255).to(torch.uint8).view_as(images)
    if look.table is not None:
        table = _to(look.table, device)
        images = table.gather(1, images.flatten(1).long()).view_as(images)
    if look.box is not None:
        box, steps = _to(look.box, device)[:, :, None], torch.arange(images.shape[1], device=device)
        within_x, within_y = (steps >= box[:, 0]) & (steps < box[:, 2]), (steps >= box[:, 1]) & (steps < box[:, 3])
        images = images.masked_fill((within_y[:, :, None] & within_x[:, None, :])[..., None], colour.GREY)
    return images


def evaluation_view(images: torch.Tensor, size: int) -> torch.Tensor:
    """As `augment.evaluation_view`: uint8 (N, S, S, 3) averaged over areas to uint8 (N, size, size, 3)."""
    stored = images.shape[1]
    if stored == size:
        return images
    shares = torch.from_numpy(_area_shares(stored, size)).to(images.device)
    pixels = images.permute(0, 3, 1, 2).float()
    return (shares @ pixels @ shares.T).permute(0, 2, 3, 1).round().to(torch.uint8)


def _area_shares(stored: int, size: int) -> np.ndarray:
    """float32 (size, stored): how much each stored pixel of a row adds to each pixel of the smaller row, by the length they share."""
    edges = np.arange(size + 1) * stored / size
    low, high = np.maximum(edges[:-1, None], np.arange(stored)), np.minimum(edges[1:, None], np.arange(1, stored + 1))
    return (np.maximum(high - low, 0) * size / stored).astype(np.float32)


def _to(values: np.ndarray, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
