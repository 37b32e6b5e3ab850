"""Damaged image files for `decode`: refused with a reason in one line, or decoded to pixels."""

from __future__ import annotations

import random

import cv2
import numpy as np

from animalclf.data.decode import UnreadableImage, decode
from fuzz import corpus
from fuzz.mutate import mutated
from fuzz.runner import Target


class Images(Target):
    def __init__(self) -> None:
        cv2.setNumThreads(1)
        self.samples = corpus.images()
        self.files = [sample.data for sample in self.samples]

    def check(self, rng: random.Random) -> str:
        sample = rng.choice(self.samples)
        data, how = mutated(sample.data, rng, self.files)
        title = f"{sample.name}, {how}"
        try:
            decoded = decode(data)
        except UnreadableImage as error:
            reason = str(error)
            assert reason and reason.isprintable() and len(reason) < 400, f"{title}: reason {reason!r}"
            return "unreadable"
        image = decoded.image
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size, title
        if how == "cut":
            same = image.shape == sample.pixels.shape and np.array_equal(image, sample.pixels)
            assert same, f"{title} to {len(data)} of {len(sample.data)} bytes: other pixels, note {decoded.note!r}"
        if not (image == image[0, 0]).all():
            return "decoded"
        assert "single colour" in decoded.note, f"{title}: one colour without a note"
        return "decoded to a single colour, with a note"
