"""Batches of one rank from a prepared set that lies whole in the training device's memory. Plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from animalclf.data.augment import is_identity
from animalclf.data.augment.torch_form import evaluation_view, to_device
from animalclf.data.loader import Batch, StoredImages
from animalclf.data.sampler import Phase, SamplingPlan

CHUNK = 1024  # images that are copied to the device at once


class DeviceLoader:
    """Holds the plan's images in the training device's memory: nothing is read or copied after the start."""

    def __init__(
        self, plan: SamplingPlan, images: StoredImages, device: torch.device, rank: int = 0, world_size: int = 1
    ) -> None:
        self.plan, self.rank, self.world_size = plan, rank, world_size
        rows = np.concatenate(list(plan.rows.values()))
        self.position = np.full(len(plan.labels), -1, np.int64)
        self.position[rows] = np.arange(len(rows))
        size = images.views(rows[:1])[0].shape if len(rows) else (0, 0, 3)
        self.images = torch.empty(len(rows), *size, dtype=torch.uint8, device=device)
        for first in range(0, len(rows), CHUNK):
            part = rows[first : first + CHUNK]
            self.images[first : first + len(part)].copy_(torch.from_numpy(np.stack(images.views(part))))
        self.labels = torch.tensor(plan.labels, device=device)
        self.views: dict[
            tuple[Phase, int], torch.Tensor
        ] = {}  # of evaluation batches, which are the same in every epoch

    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]:
        """As `MemoryLoader.batches`, with "image" and "label" on the device: stored images in training, whole views otherwise."""
        device, start = self.images.device, 0
        batches = self.plan.batch_rows(phase, epoch, self.rank, self.world_size)
        if not batches:
            return
        rows = np.concatenate(batches)
        positions, labels = (
            to_device(self.position[rows], device),
            self.labels[to_device(rows, device)],
        )  # of the whole pass, in one copy
        for number, index in enumerate(batches):
            part = slice(start, start := start + len(index))
            if len(index):
                yield {"image": self._image(phase, number, positions[part]), "label": labels[part], "index": index}  # type: ignore[dict-item]

    def _image(self, phase: Phase, number: int, positions: torch.Tensor) -> torch.Tensor:
        stored, size = self.images.shape[1], self.plan.input_size
        if stored == size or (phase == "train" and self.plan.augment_on_device):
            return self.images[positions]
        if phase == "train" or "train" not in self.plan.rows:  # without training rows there is one pass
            return evaluation_view(self.images[positions], size)
        if (phase, number) not in self.views:
            self.views[phase, number] = evaluation_view(self.images[positions], size)
        return self.views[phase, number]


class DeviceLoaders:
    """The loader of one rank for a plan whose images, `image_bytes` each, fit into the device's memory. It is made once for a plan: the
    evaluation at the end sees the same images as the epochs; the features of a frozen base are another selection."""

    def __init__(self, image_bytes: int, device: torch.device, rank: int = 0, world_size: int = 1) -> None:
        self.image_bytes, self.device, self.rank, self.world_size = image_bytes, device, rank, world_size
        self.loader: DeviceLoader | None = None

    def of(self, plan: SamplingPlan, images: Callable[[], StoredImages]) -> DeviceLoader | None:
        """The loader, or None where the images do not fit."""
        if self.loader and self.loader.plan is plan:
            return self.loader
        self.loader = None  # its memory is free before the next is filled
        if fits(plan, self.image_bytes, self.device):
            self.loader = DeviceLoader(plan, images(), self.device, self.rank, self.world_size)
        return self.loader


def fits(plan: SamplingPlan, image_bytes: int, device: torch.device) -> bool:
    """True where the plan's images take up less than half of what a GPU has free, and no training batch is augmented elsewhere."""
    if device.type != "cuda" or not (plan.augment_on_device or is_identity(plan.augment)):
        return False
    return sum(map(len, plan.rows.values())) * image_bytes * 2 < torch.cuda.mem_get_info(device)[0]
