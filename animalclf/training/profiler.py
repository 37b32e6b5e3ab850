"""A trace of a few training steps, for a browser: https://ui.perfetto.dev or chrome://tracing open it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from animalclf.runs import Run
from animalclf.utils import storage

WAIT, WARM_UP, STEPS = 2, 1, 4  # steps skipped, steps measured but not stored, and steps stored


@contextlib.contextmanager
def traced(run: Run, device: torch.device) -> Iterator[Callable[[], None]]:
    """Trace some steps into profile/trace.json.gz of the run folder. Call what this yields after every step; epochs of
    fewer than 7 steps are traced as far as they go."""

    def write(recorded: profile) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "trace.json.gz")
            recorded.export_chrome_trace(path)
            with open(path, "rb") as file:
                storage.write_bytes(run.url("profile", "trace.json.gz"), file.read())

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    plan = schedule(wait=WAIT, warmup=WARM_UP, active=STEPS, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write) as recorder:
        yield recorder.step
