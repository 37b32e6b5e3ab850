"""Batches of one rank from a prepared set in the training device's memory. Plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from animalclf.data.augment import is_identity
from animalclf.data.augment.torch_form import evaluation_view, to_device
from animalclf.data.loader import Batch, StoredImages
from animalclf.data.sampler import Phase, SamplingPlan

CHUNK = 1024  # images in one copy to the device


class DeviceLoader:
    """Holds the plan's images in the training device's memory: images are copied once, at the start.

    An image has two numbers: its manifest row (`rows`, `index`), and its position in `self.images` (`positions`).
    """

    def __init__(
        self, plan: SamplingPlan, images: StoredImages, device: torch.device, rank: int = 0, world_size: int = 1
    ) -> None:
        self.plan, self.rank, self.world_size = plan, rank, world_size
        rows = np.concatenate(list(plan.rows.values()))
        self.positions = np.full(len(plan.labels), -1, np.int64)  # of each manifest row in `images`
        self.positions[rows] = np.arange(len(rows))
        shape = images.views(rows[:1])[0].shape if len(rows) else (0, 0, 3)
        self.images = torch.empty(len(rows), *shape, dtype=torch.uint8, device=device)
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            self.images[start : start + len(chunk)].copy_(torch.from_numpy(np.stack(images.views(chunk))))
        self.labels = torch.tensor(plan.labels, device=device)
        self.evaluation_views: dict[
            tuple[Phase, int], torch.Tensor
        ] = {}  # of evaluation batches: the same in every epoch

    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]:
        """As `MemoryLoader.batches`, with "image" and "label" on the device. In training "image" holds the stored
        images, otherwise the evaluation views."""
        device = self.images.device
        batches = self.plan.batch_rows(phase, epoch, self.rank, self.world_size)
        if not batches:
            return
        rows = np.concatenate(batches)
        # One copy for the whole pass.
        positions = to_device(self.positions[rows], device)
        labels = self.labels[to_device(rows, device)]
        start = 0
        for number, index in enumerate(batches):
            part = slice(start, start := start + len(index))
            if len(index):
                image = self._image(phase, number, positions[part])
                yield {"image": image, "label": labels[part], "index": index}  # type: ignore[dict-item]

    def _image(self, phase: Phase, number: int, positions: torch.Tensor) -> torch.Tensor:
        """The images uint8 (B, S, S, 3) of batch `number` of a pass, from their positions int64 (B,)."""
        stored_size, size = self.images.shape[1], self.plan.input_size
        if stored_size == size or (phase == "train" and self.plan.augment_on_device):
            return self.images[positions]
        if (
            phase == "train" or "train" not in self.plan.rows
        ):  # a plan of one pass (frozen features) reads each image once
            return evaluation_view(self.images[positions], size)
        if (phase, number) not in self.evaluation_views:
            self.evaluation_views[phase, number] = evaluation_view(self.images[positions], size)
        return self.evaluation_views[phase, number]


class DeviceLoaders:
    """Creates and caches the DeviceLoader of one rank.

    The loader of the last plan is reused: the final evaluation has the same plan as the epochs, the cached features of
    a frozen base have another one. `image_bytes`: of one stored image.
    """

    def __init__(self, image_bytes: int, device: torch.device, rank: int = 0, world_size: int = 1) -> None:
        self.image_bytes, self.device, self.rank, self.world_size = image_bytes, device, rank, world_size
        self.loader: DeviceLoader | None = None

    def loader_for(self, plan: SamplingPlan, images: Callable[[], StoredImages]) -> DeviceLoader | None:
        """The loader of a plan, or None if its images do not fit."""
        if self.loader and self.loader.plan is plan:
            return self.loader
        self.loader = None  # frees its memory before the next loader is filled
        if fits(plan, self.image_bytes, self.device):
            self.loader = DeviceLoader(plan, images(), self.device, self.rank, self.world_size)
        return self.loader


def fits(plan: SamplingPlan, image_bytes: int, device: torch.device) -> bool:
    """True if the plan's images take less than half of a GPU's free memory, and training batches are augmented on the
    device or not at all."""
    if device.type != "cuda" or not (plan.augment_on_device or is_identity(plan.augment)):
        return False
    return sum(map(len, plan.rows.values())) * image_bytes * 2 < torch.cuda.mem_get_info(device)[0]
