"""What a replica does with image files: decode them and compute their probabilities, as `predict` does. Without Ray."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from animalclf.data.formats import UnreadableImage
from animalclf.data.loader import Batch
from animalclf.inference.images import model_input
from animalclf.inference.probabilities import batch_outputs, uses_bf16
from animalclf.serving.answers import Scored
from animalclf.serving.uploads import Upload
from animalclf.training import checkpoint


class Classifier:
    """The best model of the run folder `run`, on "cpu" or "cuda"."""

    def __init__(self, run: str, device: str = "cpu") -> None:
        cv2.setNumThreads(1)  # images are the parallelism
        self.device = torch.device(device)
        self.model, self.info = checkpoint.load_model(run, self.device)
        self.bf16 = uses_bf16(self.info.config, self.device)

    def view(self, upload: Upload) -> np.ndarray | Scored:
        """The model's input uint8 (S, S, 3), or the reason why the file is unreadable."""
        try:
            return model_input(upload.content, upload.name, self.info.config)
        except UnreadableImage as error:
            return Scored(error=str(error))

    def scores(self, views: Sequence[np.ndarray]) -> list[Scored]:
        index = np.arange(len(views))
        batch: Batch = {"image": np.stack(views), "label": index, "index": index}
        outputs = batch_outputs(self.model, iter([batch]), self.device, self.bf16)
        return [Scored(row) for row in outputs.probabilities]
