"""Image files to the inputs of a model, in tasks on any node. Without PyTorch, whose import takes two seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from animalclf.config import Config
from animalclf.data.formats import UnreadableImage
from animalclf.errors import UserError
from animalclf.inference.images import model_input
from animalclf.predictions import OK
from animalclf.prepare.task import read_files

Block = dict[str, np.ndarray]


def read_images(root: str, paths: Sequence[str], start: int, config: Config) -> Block:
    """The model's inputs uint8 (N, view_size, view_size, 3) of the images `paths` below `root`, numbered from `start`;
    black for an unreadable image.

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
        "index": np.arange(start, start + len(paths)),
        "image": views,
        "status": np.array(status, object),
        "failed": np.full(len(paths), failed, object),
    }
