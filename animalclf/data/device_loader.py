"""Batches of one rank from a prepared set that lies whole in the training device's memory. Plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from animalclf.data.augment import is_identity
from animalclf.data.augment.torch_form import evaluation_view, to_device
from animalclf.data.loader import Batch, Phase, Pictures, Schedule

LOADED = 1024  # pictures that are copied to the device at once


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
                image = self.pictures[to_device(self.position[index], self.pictures.device)]
                if not (phase == "train" and self.schedule.augment_later):
                    image = evaluation_view(image, self.schedule.input_size)
                yield {"image": image, "label": self.schedule.labels[index], "index": index}  # type: ignore[dict-item]


def fits(schedule: Schedule, picture_bytes: int, device: torch.device) -> bool:
    """True where the schedule's pictures take up less than half of what a GPU has free, and no training batch is augmented elsewhere."""
    if device.type != "cuda" or not (schedule.augment_later or is_identity(schedule.augment)):
        return False
    return sum(map(len, schedule.rows.values())) * picture_bytes * 2 < torch.cuda.mem_get_info(device)[0]
