"""What a replica does with image files: decode them and compute their probabilities, as `predict` does. Without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from animalclf.data import decode
from animalclf.data.loader import Batch
from animalclf.errors import UserError
from animalclf.features.known_file import read_scorer
from animalclf.inference.explanation import jpeg
from animalclf.inference.images import decoded_image, model_input
from animalclf.inference.model import Model
from animalclf.inference.probabilities import batch_outputs, uses_bf16
from animalclf.runs import Run
from animalclf.serving.answers import Scored
from animalclf.serving.uploads import Upload

JPEG_QUALITY = 85


class Classifier(Model):
    """The best model of the run folder `run`, on "cpu" or "cuda"."""

    def __init__(self, run: str, device: str = "cpu") -> None:
        super().__init__(run, device)
        try:
            self.scorer = read_scorer(Run(self.run))
        except UserError:  # `serve` has said why: its answers have no `known`
            self.scorer = None
        cv2.setNumThreads(1)  # images are the parallelism

    def view(self, upload: Upload) -> np.ndarray | Scored:
        """The model's input uint8 (S, S, 3), or the reason why the file is unreadable."""
        try:
            return model_input(upload.content, upload.name, self.config)
        except decode.UnreadableImage as error:
            return Scored(error=str(error))

    def scores(self, views: Sequence[np.ndarray]) -> list[Scored]:
        index = np.arange(len(views))
        batch: Batch = {"image": np.stack(views), "label": index, "index": index}
        bf16 = uses_bf16(self.config, self.device)
        summary = self.scorer.score if self.scorer else None
        outputs = batch_outputs(self._classifier, iter([batch]), self.device, bf16, summary=summary)
        if outputs.summaries is None:
            return [Scored(row) for row in outputs.probabilities]
        pairs = zip(outputs.probabilities, outputs.summaries.tolist(), strict=True)
        return [Scored(row, known_score=score) for row, score in pairs]

    def with_heat_map(self, upload: Upload, scored: Scored) -> Scored:
        """`scored` of a readable upload, with a heat map, or the reason why this network has none."""
        image = decoded_image(upload.content, upload.name, self.config.data)
        try:
            (explanation,) = self.explain(image)
        except UserError as error:
            return replace(scored, heat_map_error=str(error))
        return replace(scored, heat_map=jpeg(explanation.overlay, JPEG_QUALITY))
