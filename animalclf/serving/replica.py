"""What runs in each replica of Ray Serve."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from ray import serve

from animalclf.serving.answers import Scored
from animalclf.serving.classifier import Classifier
from animalclf.serving.uploads import Upload
from animalclf.training.distributed import set_up_cpu

MAX_BATCH = 32  # images that a replica classifies at a time
BATCH_SECONDS = 0.002  # that an idle replica waits for more images
DECODING_THREADS = 2


class Replica:
    """A model in its own process. While it classifies a batch, the images of the next one are decoded."""

    def __init__(self, run: str, use_gpu: bool, replicas_per_node: int) -> None:
        set_up_cpu(0, replicas_per_node)
        self.classifier = Classifier(run, "cuda" if use_gpu else "cpu")
        self.decoding, self.computing = ThreadPoolExecutor(DECODING_THREADS), ThreadPoolExecutor(1)

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
