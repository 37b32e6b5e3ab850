"""Batches of one rank from a prepared set that lies whole in the training device's memory. Plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from animalclf.data.augment import is_identity
from animalclf.data.augment.torch_form import evaluation_view, to_device
from animalclf.data.loader import Batch, StoredImages
from animalclf.data.sampler import Phase, SamplingPlan

CHUNK = 1024  # images that are copied to the device at once


class DeviceLoader:
    """Holds the plan's images in the training device's memory: nothing is read or copied after the start."""

    def __init__(self, plan: SamplingPlan, images: StoredImages, device: torch.device, rank: int = 0, world_size: int = 1) -> None:
        self.plan, self.rank, self.world_size = plan, rank, world_size
        rows = np.concatenate(list(plan.rows.values()))
        self.position = np.full(len(plan.labels), -1, np.int64)
        self.position[rows] = np.arange(len(rows))
        chunks = [torch.from_numpy(np.stack(images.views(rows[first : first + CHUNK]))).to(device) for first in range(0, len(rows), CHUNK)]
        self.images = torch.cat(chunks) if chunks else torch.empty(0, device=device)

    def batches(self, phase: Phase, epoch: int) -> Iterator[Batch]:
        """As `MemoryLoader.batches`, with "image" on the device: stored images in training, evaluation views otherwise."""
        for index in self.plan.batch_rows(phase, epoch, self.rank, self.world_size):
            if len(index):
                image = self.images[to_device(self.position[index], self.images.device)]
                if not (phase == "train" and self.plan.augment_on_device):
                    image = evaluation_view(image, self.plan.input_size)
                yield {"image": image, "label": self.plan.labels[index], "index": index}  # type: ignore[dict-item]


def fits(plan: SamplingPlan, image_bytes: int, device: torch.device) -> bool:
    """True where the plan's images take up less than half of what a GPU has free, and no training batch is augmented elsewhere."""
    if device.type != "cuda" or not (plan.augment_on_device or is_identity(plan.augment)):
        return False
    return sum(map(len, plan.rows.values())) * image_bytes * 2 < torch.cuda.mem_get_info(device)[0]
