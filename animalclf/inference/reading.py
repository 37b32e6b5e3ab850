"""Image files to the inputs of a model, in tasks on any node. Without PyTorch, whose import takes two seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from animalclf.config import Config
from animalclf.data.formats import UnreadableImage
from animalclf.errors import UserError
from animalclf.inference.images import model_input
from animalclf.predictions import OK
from animalclf.prepare.task import read_files

Block = dict[str, np.ndarray]


class PackedTexts(NamedTuple):
    """Texts as arrays, which Ray's tasks map into their memory: of a list each task would read all to take a few."""

    letters: np.ndarray
    """uint8: UTF-8 of all texts, one after another."""
    edges: np.ndarray
    """int64 (N + 1,): text n is letters[edges[n] : edges[n + 1]]."""

    @classmethod
    def pack(cls, texts: Sequence[str]) -> PackedTexts:
        encoded = [text.encode(errors="surrogatepass") for text in texts]
        sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return cls(np.frombuffer(b"".join(encoded), np.uint8), np.append(0, sizes.cumsum()))

    def take(self, index: np.ndarray) -> list[str]:
        """The texts with the numbers `index` int64 (N,)."""
        edges = zip(self.edges[index].tolist(), self.edges[index + 1].tolist(), strict=True)
        return [self.letters[low:high].tobytes().decode(errors="surrogatepass") for low, high in edges]


def read_images(root: str, paths: Sequence[str], index: np.ndarray, config: Config) -> Block:
    """The model's inputs uint8 (N, view_size, view_size, 3) of the images `paths` below `root`, whose numbers are
    `index` int64 (N,); black for an unreadable image.

    `failed` is why the whole classification must stop: the message of a UserError, since Ray would wrap the exception.
    """
    import cv2

    cv2.setNumThreads(1)  # the tasks are the parallelism
    views = np.zeros((len(paths), config.view_size, config.view_size, 3), np.uint8)
    status = [OK] * len(paths)
    failed = ""
    try:
        contents = read_files(root, paths)
    except UserError as error:
        contents, failed = [], str(error)
    for row, (path, content) in enumerate(zip(paths, contents, strict=not failed)):
        if isinstance(content, str):
            status[row] = content
            continue
        try:
            views[row] = model_input(content, path, config)
        except UnreadableImage as error:
            status[row] = str(error)
    return {
        "index": index,
        "image": views,
        "status": np.array(status, object),
        "failed": np.full(len(paths), failed, object),
    }
