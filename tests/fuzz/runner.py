"""Runs a target on numbered inputs in processes of limited time and memory. An input depends on the seed and its number
alone, so that a fault is repeated by both. A process that dies or hangs is a fault too; another one continues."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import psutil

MAX_SECONDS = 2.0  # of CPU time, because the machine may be busy
MAX_BYTES = 2**30
HANG_CPU_SECONDS = 120.0  # of a process without progress, after which it is ended
HANG_SECONDS = 4 * 3600.0  # the same for one that waits; long, because a machine may be busy, or the process paused
MAX_RESTARTS = 50


class Target(ABC):
    """Inputs of one kind, and what must be true of the answer to each."""

    @abstractmethod
    def check(self, rng: random.Random) -> str:
        """Draw an input and read it. Returns the outcome in a word or two. Raises AssertionError for a wrong answer;
        any other exception is a fault as well."""

    def close(self) -> None:  # noqa: B027  (most inputs leave nothing behind)
        """Leave the process as it was."""


@dataclass
class Report:
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    slowest: float = 0.0
    """CPU seconds of the slowest input."""
    max_bytes: int = 0
    """Largest memory of a process above its memory before the first input."""

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count:,} {name}" for name, count in self.outcomes.most_common())
        return (
            f"{sum(self.outcomes.values()):,} inputs in {self.seconds:.0f} s: {outcomes}; slowest {self.slowest:.2f} s "
            f"of CPU time, memory at most {self.max_bytes / 2**20:.0f} MB more; {len(self.faults):,} faults"
        )


@dataclass
class _Process:
    process: multiprocessing.process.BaseProcess
    reports: Connection
    current: Synchronized[int]
    numbers: range
    changed: float
    """Time of the last report."""
    changed_cpu: float = 0.0
    """CPU seconds of the process at that time."""
    last: int = -1


def run(target: type[Target], count: int, seed: int, processes: int = 2) -> Report:
    """Give inputs 0 to `count` - 1 to `target`."""
    report, started = Report(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        running = [_start(target, seed, range(first, count, processes), folder) for first in range(processes)]
        restarts = 0
        while running:
            for item in list(running):
                _collect(item, report)
                if item.process.is_alive() and not _hangs(item):
                    continue
                running.remove(item)
                rest = _end(item, report, folder)
                restarts += bool(rest)
                if rest and restarts <= MAX_RESTARTS:
                    running.append(_start(target, seed, rest, folder))
            time.sleep(0.05)
    report.seconds = time.monotonic() - started
    return report


def run_here(target: Target, numbers: range, seed: int) -> Report:
    """As `run`, in this process and without limits."""
    report, started = Report(), time.monotonic()
    for number in numbers:
        outcome, fault, seconds = _checked(target, number, seed)
        report.outcomes[outcome] += 1
        report.faults += [fault] * bool(fault)
        report.slowest = max(report.slowest, seconds)
    report.seconds = time.monotonic() - started
    return report


def _checked(target: Target, number: int, seed: int) -> tuple[str, str, float]:
    """The outcome of an input, its fault ("" if none) and its CPU seconds."""
    started = time.process_time()
    try:
        outcome, fault = target.check(random.Random(f"{seed} {number}")), ""
    except AssertionError as error:
        outcome, fault = "wrong", f"input {number}: {error}"
    except Exception as error:  # noqa: BLE001 - every exception is a fault
        frames = traceback.extract_tb(error.__traceback__)
        place = next(
            (frame for frame in reversed(frames) if f"{os.sep}animalclf{os.sep}" in frame.filename), frames[-1]
        )
        text = "; ".join([str(error).strip(), *getattr(error, "__notes__", [])])
        location = f"{os.path.basename(place.filename)}:{place.lineno}"
        outcome, fault = "exception", f"input {number}: {type(error).__name__}: {text} ({location})"
    seconds = time.process_time() - started
    if seconds > MAX_SECONDS:
        fault = f"input {number}: took {seconds:.1f} s of CPU time; {fault}"
    return outcome, fault, seconds


def _start(target: type[Target], seed: int, numbers: range, folder: str) -> _Process:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    current = context.Value("l", numbers.start)
    process = context.Process(target=_work, args=(target, seed, numbers, sender, current, folder), daemon=True)
    process.start()
    sender.close()
    return _Process(process, receiver, current, numbers, time.monotonic())


def _work(
    target: type[Target], seed: int, numbers: range, sender: Connection, current: Synchronized[int], folder: str
) -> None:
    log = open(os.path.join(folder, f"{os.getpid()}.log"), "wb", buffering=0)  # noqa: SIM115 - until the process ends
    os.dup2(log.fileno(), sys.stderr.fileno())  # libraries write there
    faulthandler.enable()
    fuzzed = target()
    memory = _peak_memory()
    outcomes: Counter[str] = Counter()
    slowest, reported = 0.0, time.monotonic()
    for number in numbers:
        current.value = number
        outcome, fault, seconds = _checked(fuzzed, number, seed)
        outcomes[outcome] += 1
        slowest = max(slowest, seconds)
        more = _peak_memory() - memory
        if more > MAX_BYTES:
            fault = f"input {number}: took {more / 2**20:.0f} MB; {fault}"
        if fault or time.monotonic() - reported > 0.5:
            sender.send((outcomes, fault, slowest, more, number))
            outcomes, reported = Counter(), time.monotonic()
        if more > MAX_BYTES:
            return  # the peak never falls, so another process measures the next inputs
    sender.send((outcomes, "", slowest, _peak_memory() - memory, numbers[-1] if numbers else -1))
    current.value = -1


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _collect(item: _Process, report: Report) -> None:
    try:
        while item.reports.poll():
            outcomes, fault, slowest, more, item.last = item.reports.recv()
            item.changed, item.changed_cpu = time.monotonic(), _cpu_seconds(item)
            report.outcomes += outcomes
            report.faults += [fault] * bool(fault)
            report.slowest, report.max_bytes = max(report.slowest, slowest), max(report.max_bytes, more)
    except EOFError:
        pass


def _hangs(item: _Process) -> bool:
    return _cpu_seconds(item) - item.changed_cpu > HANG_CPU_SECONDS or time.monotonic() - item.changed > HANG_SECONDS


def _cpu_seconds(item: _Process) -> float:
    try:
        times = psutil.Process(item.process.pid).cpu_times()
    except psutil.NoSuchProcess:
        return item.changed_cpu
    return float(times.user + times.system)


def _end(item: _Process, report: Report, folder: str) -> range:
    """The numbers that are left after a process has ended, or hangs and is killed here."""
    hangs = item.process.is_alive()
    if hangs:
        item.process.kill()
    item.process.join()
    _collect(item, report)
    if item.current.value == -1:
        return range(0)
    number = item.current.value
    if hangs or item.process.exitcode != 0:
        log = Path(folder, f"{item.process.pid}.log")
        tail = log.read_bytes()[-2000:].decode("utf-8", "replace") if log.exists() else ""
        limits = f"no answer in {HANG_CPU_SECONDS:g} s of CPU time, or {HANG_SECONDS:g} s"
        reason = limits if hangs else f"exit status {item.process.exitcode}"
        report.outcomes["crash"] += 1
        report.faults.append(f"input {number}: {reason}\n{tail}")
    return range(number + item.numbers.step, item.numbers.stop, item.numbers.step)
