"""The network of a rehearsal: parameters, checkpoints, device and memory, and whether its features are cached."""

from __future__ import annotations

import resource
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from animalclf.data.loader import Loader
from animalclf.data.prepared_set import Prepared, open_prepared
from animalclf.data.sampler import sampling_plan
from animalclf.models import build
from animalclf.models.classifier import count_parameters
from animalclf.planning.sample import SampleTask
from animalclf.rows import Measured
from animalclf.runs import Run
from animalclf.training.cached_views import map_shape, stored_bytes
from animalclf.training.context import TrainContext
from animalclf.training.distributed import RankContext
from animalclf.training.feature_cache import cache_of
from animalclf.training.train import ignore
from animalclf.utils import storage


def measure(measured: Measured, task: SampleTask, prepared: Prepared, run: Run) -> Measured:
    """`measured` with what the run folder of the rehearsal, and this process, say of the network."""
    config, result = task.config, run.result()
    with torch.device("meta"):
        model = build(config.model, len(prepared.classes), load_weights=False, keep_shape=config.keeps_shape)
    views = config.train.cached_views
    parameters, trainable = (count_parameters(model, only) for only in (False, True))
    measured = replace(
        measured,
        device="cpu" if task.cpu or not torch.cuda.is_available() else "cuda",
        precision=result.precision,
        parameters=parameters - (count_parameters(model.head) if config.train.heads else 0),
        trainable=0 if config.train.heads else trainable,
        best_bytes=storage.size(run.checkpoint("best")),
        last_bytes=storage.size(run.checkpoint("last")),
        worker_bytes=_peak_memory(),
        map_bytes=stored_bytes(config, map_shape(model, config.view_size), 0, 1) if views else 0,
        features=sample_features(prepared.root).shape[1] if task.on_features else 0,
    )
    if measured.device == "cuda":
        memory, total = torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(0).total_memory
        measured = replace(measured, gpu_bytes=memory, gpu_total=total)
    return measured


def sample_features(root: str) -> np.ndarray:
    """The features that the rehearsal has stored in its prepared set, float32 (N, F)."""
    with np.load(next(Path(root).glob("features-*.npz"))) as arrays:
        values: np.ndarray = arrays["values"]
    return values.reshape(len(values), -1)


def has_cached_features(task: SampleTask, device: str) -> bool:
    """Whether the prepared set that the sample is from has the features of this base."""
    config = task.config
    if not (task.sample.is_prepared and config.train.cache_features):
        return False
    prepared, ranks = open_prepared(task.sample.root), RankContext(device=torch.device(device))
    run = Run(task.sample.root)  # nothing reads or writes it

    def no_loader(*_: object) -> Loader:
        raise AssertionError("the key of a cache needs no batches")

    context = TrainContext(config, prepared, sampling_plan(prepared, config), run, ranks, no_loader, ignore)
    torch.manual_seed(config.seed)  # as a training initialises the weights that it does not load
    model = build(config.model, len(prepared.classes), keep_shape=config.keeps_shape)
    if config.train.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return storage.exists(cache_of(context, model).url)


def _peak_memory() -> int:
    """Bytes that this process has held at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
