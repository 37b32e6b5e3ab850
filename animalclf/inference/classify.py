"""Batch inference with Ray Data: tasks on any node read and decode images, replicas of the model classify them, and
this process collects the probabilities."""

from __future__ import annotations

import atexit
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import ray
import ray.data
import torch
from ray.util.annotations import RayDeprecationWarning

from animalclf.cluster import configure_ray_data
from animalclf.cluster_size import cpus_per_node, free_cpus_text
from animalclf.config import Config
from animalclf.errors import UserError
from animalclf.inference.probabilities import batch_outputs, uses_bf16
from animalclf.inference.reading import Block, PackedTexts, read_images
from animalclf.inference.views import check_views
from animalclf.models.classifier import Classifier
from animalclf.training.outputs import Summary
from animalclf.utils import storage
from animalclf.utils.console import show_line
from animalclf.utils.progress import ProgressLine
from animalclf.utils.stall import told_of_stalls
from animalclf.utils.text import count_text

BLOCK_BYTES = 64_000_000
"""Of the images of a block, at most. Ray takes 20 ms of CPU time for a block, in which a fast model classifies hundreds
of images (python -m benchmarks.large_set)."""
WORKER_DEATHS = (
    ray.exceptions.RayActorError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.WorkerCrashedError,
)
WAIT_SECONDS = 1.0  # between two checks of a call that waits for another one
_one_at_a_time = threading.Lock()
"""Two calls of one process could hold all CPUs between them, one for each model, with none left for reading images."""


@dataclass(frozen=True)
class Options:
    """How images are classified."""

    batch_size: int = 64
    workers: int = 0
    """Replicas of the model; 0: one per GPU, or one per node without GPUs."""
    device: str = "auto"
    """auto, cpu or cuda."""
    views: str = "none"
    """What the probabilities are averaged over, a name of VIEWS."""
    progress: bool = True
    """Show a progress bar."""


class Classified(NamedTuple):
    """Of N images: `probabilities` float32 (N, C), which mean nothing for an unreadable image, and `status`: OK, or why
    the image is unreadable."""

    probabilities: np.ndarray
    status: list[str]
    summaries: np.ndarray | None
    """Of the features, float32 (N, ...), if they were asked for and there are images."""


@dataclass(frozen=True)
class _Job:
    """The input of each execution."""

    model: ray.ObjectRef
    """A Classifier and the Summary of its features, or None."""
    paths: ray.ObjectRef
    """PackedTexts, relative to `root`."""
    root: str
    config: Config
    replicas: int
    use_gpu: bool
    options: Options


def classify(
    model: Classifier,
    config: Config,
    root: str,
    paths: Sequence[str],
    options: Options,
    summary: Summary | None = None,
    check: Callable[[], None] = lambda: None,
) -> Classified:
    """Class probabilities of the images `paths` below `root`, in their order, and the `summary` of their features (see
    `batch_outputs`). Images are decoded and resized as in `prepare`. `check` is called after each batch; what it raises
    ends the work.

    Raises UserError if the cluster is too small for `workers` or `device`, a node cannot see `root`, or the
    probabilities are not finite.
    """
    from animalclf.cluster import ensure_ray
    from animalclf.cluster_size import gpu_count, max_resources
    from animalclf.training.resources import Workers, preflight

    check_views(options.views)
    batch_size, workers, device = options.batch_size, options.workers, options.device
    if batch_size < 1 or device not in ("auto", "cpu", "cuda"):
        raise UserError(
            f"batch size {batch_size}, device {device!r}: a batch has at least 1 image, a device is auto, cpu or cuda"
        )
    ensure_ray(workers or 1)
    use_gpu = device == "cuda" or (device == "auto" and max_resources().get("GPU", 0) > 0)
    options = replace(options, batch_size=min(batch_size, max(len(paths), 1)))
    batches = math.ceil(len(paths) / batch_size)
    replicas = workers or min(max(gpu_count(), 1) if use_gpu else len(cpus_per_node()), batches)
    resources = preflight(Workers.fixed(replicas, use_gpu), [root])
    if options.progress:
        replicas_text = f"{count_text(replicas, 'GPU worker' if use_gpu else 'CPU worker')} ({resources})"
        images = f"{len(paths):,} images of {root}" if len(paths) != 1 else f"1 image, {storage.join(root, paths[0])},"
        show_line(f"{images} with {config.name} on {replicas_text}")
    job = _Job(ray.put((model, summary)), ray.put(PackedTexts.pack(paths)), root, config, replicas, use_gpu, options)
    with _turn(check):
        return _collect(job, len(paths), model.classes, check)


@contextmanager
def _turn(check: Callable[[], None]) -> Iterator[None]:
    """Within the block no other call of this process classifies. `check` is called while this one waits."""
    if not _one_at_a_time.acquire(blocking=False):
        show_line("waiting for another prediction of this process")
        while not _one_at_a_time.acquire(timeout=WAIT_SECONDS):
            check()
    try:
        yield
    finally:
        _one_at_a_time.release()


def _collect(job: _Job, count: int, classes: int, check: Callable[[], None]) -> Classified:
    """The results of all images, with a progress bar."""
    probabilities, summaries = np.zeros((count, classes), np.float32), None
    status = np.full(count, "", object)
    done = 0
    with ProgressLine(enabled=job.options.progress) as line, told_of_stalls(free_cpus_text) as progressed:
        line.update("classifying", done, count)
        for block in _blocks(job, count):
            check()
            progressed()
            probabilities[block["index"]], status[block["index"]] = block["probabilities"], block["status"]
            if "summaries" in block:
                if summaries is None:
                    summaries = np.zeros((count, *block["summaries"].shape[1:]), np.float32)
                summaries[block["index"]] = block["summaries"]
            done += len(block["index"])
            line.update("classifying", done, count)
    if done != count or (status == "").any():
        raise RuntimeError(
            f"{done} results for {count} images, {(status == '').sum()} images without a result: this is a bug, please "
            "report it"
        )
    if not np.isfinite(probabilities).all():
        raise UserError(
            "the model's probabilities are not finite: its training diverged; train again with a lower optim.lr"
        )
    return Classified(probabilities, status.tolist(), summaries)


def _blocks(job: _Job, count: int) -> Iterator[Block]:
    """Blocks with the columns index, probabilities, status and, if asked for, summaries, each of whole batches, in the
    order of completion.

    A batch always has the same images, so the probabilities do not depend on the timing. Batches lost with a dead
    replica are retried here, because Ray's own restarts never end if a batch is too large for the memory.
    """
    batch_size = job.options.batch_size
    pending = set(range(math.ceil(count / batch_size)))
    deaths = 0
    while pending:
        try:
            for block in _execute(job, sorted(pending)):
                failures = [text for text in block["failed"] if text]
                if failures:
                    raise UserError(failures[0])
                pending -= set((block["index"] // batch_size).tolist())
                yield block
        except WORKER_DEATHS as error:
            deaths += 1
            if deaths > job.config.train.max_failures:
                raise UserError(
                    f"a replica of the model died {deaths} times, probably out of memory; free memory, or try a "
                    "smaller --batch-size"
                ) from error


def _execute(job: _Job, batches: list[int]) -> Iterator[Block]:
    """One Ray Data execution over the batches with these numbers."""
    configure_ray_data()
    processes = sum(cpus_per_node()) + job.replicas
    image_bytes = 3 * job.config.view_size**2
    groups = grouped(batches, processes, max(1, BLOCK_BYTES // (job.options.batch_size * image_bytes)))
    yield from _dataset(job, groups).iter_batches(batch_size=None, batch_format="numpy")


def grouped(batches: Sequence[int], processes: int, largest: int) -> list[list[int]]:
    """`batches` in groups of 1 to `largest`. The first groups are small, so that the model starts soon, and the last
    ones too, so that all `processes` end at about the same time."""
    groups: list[list[int]] = []
    start = 0
    while start < len(batches):
        left = len(batches) - start
        size = max(1, min(1 + len(groups) // processes, left // (2 * processes), largest))
        groups.append(list(batches[start : start + size]))
        start += size
    return groups


def _dataset(job: _Job, groups: list[list[int]]) -> ray.data.Dataset:
    """Of blocks with the columns that `_blocks` yields, one for each group of batches with these numbers."""
    root, config, paths, batch_size = job.root, job.config, job.paths, job.options.batch_size  # pickled without `job`

    def read(block: Block) -> Block:
        texts, starts = ray.get(paths), np.array(groups[int(block["id"][0])]) * batch_size
        index = (starts[:, None] + np.arange(batch_size)).ravel()
        index = index[index < len(texts.edges) - 1]  # the last batch may be smaller
        return read_images(root, texts.take(index), index, config)

    cpus = cpus_per_node()
    replicas_per_node = math.ceil(job.replicas / len(cpus))
    replica = {"max_restarts": 0, "max_task_retries": 0}
    if job.use_gpu:  # not as an argument of map_batches, which would then insist on batches of one size
        cpus_of_replica, replica = 0, {**replica, "num_gpus": 1}
    else:  # a replica reserves the CPUs of its threads, so replicas spread over nodes; one CPU per node reads images
        cpus_of_replica = max(1, (min(cpus) - 1) // replicas_per_node)
    dataset = ray.data.range(len(groups), override_num_blocks=len(groups)).map_batches(read, batch_size=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # ray_remote_args_fn: Ray 2.64 removes it
        return dataset.map_batches(
            _Replica,
            fn_constructor_args=(job.model, config, job.use_gpu, replicas_per_node, job.options),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=job.replicas),
            # The function also prevents Ray Data from fusing the stages: images are decoded while the model runs.
            ray_remote_args_fn=lambda: replica,
            num_cpus=cpus_of_replica,
        )


class _Replica:
    """One replica of the model, in its own actor."""

    def __init__(
        self, model: ray.ObjectRef, config: Config, use_gpu: bool, replicas_per_node: int, options: Options
    ) -> None:
        from animalclf.training.distributed import set_up_cpu

        # Ray 2.60 sometimes hangs at the exit of an actor, which then still holds the model's memory.
        atexit.register(os._exit, 0)
        set_up_cpu(0, replicas_per_node)
        self.device = torch.device("cuda" if use_gpu else "cpu")
        classifier, self.summary = ray.get(model)
        self.model = classifier.to(self.device).eval()
        self.bf16, self.options = uses_bf16(config, self.device), options

    def __call__(self, block: Block) -> Block:
        index, images, size = block["index"], block.pop("image"), self.options.batch_size
        slices = (slice(start, start + size) for start in range(0, len(index), size))
        batches = ({"image": images[rows], "label": index[rows], "index": index[rows]} for rows in slices)
        outputs = batch_outputs(self.model, batches, self.device, self.bf16, self.options.views, self.summary)
        block["probabilities"] = outputs.probabilities
        return block if outputs.summaries is None else {**block, "summaries": outputs.summaries}
