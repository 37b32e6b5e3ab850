"""A trace of a few training steps, to open in a browser with https://ui.perfetto.dev or chrome://tracing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from animalclf.runs import Run
from animalclf.utils import storage

WAIT, WARM_UP, STEPS = 2, 1, 4  # steps skipped, profiled without being stored, and stored


@contextlib.contextmanager
def trace_steps(run: Run, device: torch.device) -> Iterator[Callable[[], None]]:
    """Trace some steps into profile/trace.json.gz of the run folder. Yields a function to call after every step. Epochs
    of fewer than 7 steps are traced to their end."""

    def write(trace: profile) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "trace.json.gz")
            trace.export_chrome_trace(path)
            with open(path, "rb") as file:
                storage.write_bytes(run.url("profile", "trace.json.gz"), file.read())

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    steps = schedule(wait=WAIT, warmup=WARM_UP, active=STEPS, repeat=1)
    with profile(activities=activities, schedule=steps, on_trace_ready=write) as profiler:
        yield profiler.step
