"""Time and memory of a command with all processes that it starts, sampled while it runs.

CPU seconds are those that a process had when it was last seen, so up to an interval of each process is missing. Memory
is private memory (USS): what several processes share, such as libraries and Ray's object store, counts in none.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import Self

import psutil

INTERVAL = 0.2  # seconds
REPLICA = "_Replica"  # in the name of the process of a model that predicts
WORKER = "RayTrainWorker"  # in that of a training


@dataclass
class Usage:
    """Of the processes that this process starts. Memory is the peak in GB."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    driver_gb: float = 0.0
    """Of the command's own process."""
    model_gb: float = 0.0
    """Of the largest process with a model besides the driver."""
    processes_gb: float = 0.0
    """Of all together."""


class Watch:
    """Within its context the processes that this process starts are watched; afterwards `usage` has the results."""

    def __init__(self, memory: bool = True) -> None:
        """`memory`: whether it is measured, which takes some time of the processor itself."""
        self.usage, self.memory = Usage(), memory
        self._cpu_of: dict[tuple[int, float], float] = {}  # by process id and start
        self._ended, self._started = threading.Event(), 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.usage.seconds = time.perf_counter() - self._started
        self._ended.set()
        self._thread.join()
        self.usage.cpu_seconds = sum(self._cpu_of.values())

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL):
            self._sample()

    def _sample(self) -> None:
        usage, total = self.usage, 0.0
        for process in psutil.Process().children(recursive=True):
            try:
                with process.oneshot():
                    size = process.memory_full_info().uss / 1e9 if self.memory else 0.0
                    times = process.cpu_times()
                    name, key = " ".join(process.cmdline()[:2]), (process.pid, process.create_time())
                    parent = process.ppid()
            except psutil.Error:  # one that has just ended
                continue
            total += size
            self._cpu_of[key] = max(self._cpu_of.get(key, 0.0), times.user + times.system)
            if parent == os.getpid():
                usage.driver_gb = max(usage.driver_gb, size)
            if REPLICA in name or WORKER in name:
                usage.model_gb = max(usage.model_gb, size)
        usage.processes_gb = max(usage.processes_gb, total)
