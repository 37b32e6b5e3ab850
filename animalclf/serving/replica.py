"""What runs in each replica of Ray Serve."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from ray import serve

from animalclf.serving.answers import Scored
from animalclf.serving.classifier import Classifier
from animalclf.serving.uploads import Upload
from animalclf.training.distributed import set_up_cpu

MAX_BATCH = 32  # images that a replica classifies at a time
BATCH_SECONDS = 0.002  # that an idle replica waits for more images
DECODING_THREADS = 2


def set_threads(replicas_per_node: int) -> None:
    """Set the CPU threads of the networks that the calling thread computes: the node's cores divided by its replicas,
    without one, which decodes images and answers clients."""
    set_up_cpu(0, replicas_per_node)
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))


class Replica:
    """A model in its own process. While it classifies a batch, the images of the next one are decoded."""

    def __init__(self, run: str, use_gpu: bool, replicas_per_node: int) -> None:
        self.classifier = Classifier(run, "cuda" if use_gpu else "cpu")
        self.decoding = ThreadPoolExecutor(DECODING_THREADS)
        # PyTorch's number of threads belongs to the thread that sets it.
        self.computing = ThreadPoolExecutor(1, initializer=set_threads, initargs=(replicas_per_node,))

    async def __call__(self, upload: Upload, explain: bool) -> Scored:
        run = asyncio.get_running_loop().run_in_executor
        view = await run(self.decoding, self.classifier.view, upload)
        if isinstance(view, Scored):
            return view
        scored: Scored = await self.scores(view)
        return await run(self.computing, self.classifier.with_heat_map, upload, scored) if explain else scored

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_SECONDS)
    async def scores(self, views: list[np.ndarray]) -> list[Scored]:
        return await asyncio.get_running_loop().run_in_executor(self.computing, self.classifier.scores, views)
