"""Kills of real commands on a local Ray: SIGKILL to the command itself (the driver) or to one of Ray's worker
processes, SIGTERM to one of them (the warning of a spot machine)."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import psutil

from kills.runner import Ended, Report, fork
from kills.scenarios import Compare, Predict, Prepare, Scenario, Train

SETTINGS = {
    "model.name": "squeezenet1_1",
    "model.weights": "none",
    "model.input_size": 32,
    "data.stored_size": 40,
    "train.epochs": 12,
    "train.batch_size": 16,
    "train.precision": "fp32",
    "train.threads": 1,  # several wait for each other on a busy machine
    "optim.lr": 0.001,
}
MAX_KILLS = 3  # of one command, before it may end; also train.max_failures
END_SECONDS = 90.0  # for Ray's processes to end after their driver; its agents look for it for a minute
TIMEOUT = 400.0
Victim = Literal["driver", "worker", "warned-worker"]
VICTIMS: tuple[Victim, ...] = get_args(Victim)


class RayTrain(Train):
    settings = SETTINGS

    def arguments(self, out: Path) -> list[str]:
        return [argument for argument in super().arguments(out) if argument != "--local"]


class LocalTrain(Train):
    settings = SETTINGS  # real commands do not know the tiny model


class RayPredict(Predict):
    training = LocalTrain


class RayCompare(Compare):
    settings = SETTINGS | {"train.epochs": 4}


SCENARIOS: Sequence[type[Scenario]] = (RayTrain, Prepare, RayPredict, RayCompare)


@dataclass
class Pace:
    """Seconds from the start of a command to its first file, and from there to its end."""

    start: float
    rest: float

    @classmethod
    def of(cls, ended: Ended) -> Self:
        return cls(ended.first_file, ended.seconds - ended.first_file)

    def strike(self, victim: Victim, rng: random.Random) -> Strike:
        """At a random instant of the whole command, or of its part that writes files."""
        if rng.random() < 0.5:
            return Strike(victim, rng.uniform(0, self.rest), after_first_file=True, rng=rng)
        return Strike(victim, rng.uniform(0, self.start + self.rest), after_first_file=False, rng=rng)


@dataclass
class Strike:
    """A kill `seconds` after the start of a command or after its first file. A worker is killed as soon as one has
    work."""

    victim: Victim
    seconds: float
    after_first_file: bool
    rng: random.Random

    def is_due(self, seconds: float, first_file: float | None) -> bool:
        origin = first_file if self.after_first_file else 0.0
        return origin is not None and seconds - origin > self.seconds

    def kill(self, driver: subprocess.Popen[bytes]) -> bool:
        """False if no worker has work at this instant."""
        if self.victim == "driver":
            driver.kill()
            return True
        workers = [process for process in _descendants(driver.pid) if _is_worker(process)]
        if not any(_is_busy(process) for process in workers):
            return False
        with contextlib.suppress(psutil.Error, IndexError):
            process = self.rng.choice(sorted(workers, key=lambda process: process.pid))
            process.send_signal(signal.SIGTERM if self.victim == "warned-worker" else signal.SIGKILL)
            return True
        return False


class Orphans:
    """Ray's processes whose driver was killed. They have to end while the same command runs again and others do."""

    def __init__(self) -> None:
        self.groups: list[tuple[str, float, set[psutil.Process]]] = []

    def add(self, label: str, processes: set[psutil.Process]) -> None:
        self.groups.append((label, time.monotonic() + END_SECONDS, processes))

    def faults(self, *, wait: bool) -> list[str]:
        """Of the groups whose time is up, those that still run."""
        faults, groups = [], []
        for label, until, processes in self.groups:
            _, alive = psutil.wait_procs(processes, timeout=max(0.0, until - time.monotonic()) if wait else 0)
            running = {process for process in alive if process.is_running()}
            if running and time.monotonic() > until:
                faults.append(f"{label}: processes of Ray still run after {END_SECONDS:.0f} s: {running}")
            elif running:
                groups.append((label, until, running))
        self.groups = groups
        return faults


def run(kind: type[Scenario], victim: Victim, count: int, seed: int, first: int = 0) -> Report:
    """Kill `count` times. A killed driver is started again at once; a killed worker must not end the command. One may
    end a trial of a comparison, which is started again too."""
    report, started, orphans = Report(), time.monotonic(), Orphans()
    with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary).resolve()
        scenario = kind(folder / "inputs")
        created = fork(lambda: scenario.create_inputs() or 0, folder / "log")  # type: ignore[func-returns-value]
        assert created.code == 0, created.text
        (folder / "undisturbed").mkdir()
        undisturbed = _command(scenario, folder / "undisturbed")
        assert undisturbed.code == 0, undisturbed.text
        kills = Kills(scenario, victim, scenario.facts(folder / "undisturbed"), Pace.of(undisturbed), orphans, report)
        number = first
        while report.outcomes[kills.outcome] < count and number - first < 3 * count:
            out, label = folder / f"out-{number}", f"{kind.name} {victim} {number}"
            out.mkdir()
            before, at = report.outcomes.copy(), time.monotonic()
            try:
                kills.case(out, label, random.Random(f"{seed} {label}"))
            except Exception as error:  # noqa: BLE001 - every exception is a fault
                frame = traceback.extract_tb(error.__traceback__)[-1]
                report.faults.append(f"{label}: {type(error).__name__}: {error} (line {frame.lineno})")
                print(report.faults[-1], flush=True)
            report.faults += orphans.faults(wait=False)
            outcomes = ", ".join(f"{value} {name}" for name, value in (report.outcomes - before).items())
            print(f"{label}: {outcomes}; {time.monotonic() - at:.0f} s", flush=True)
            shutil.rmtree(out, ignore_errors=True)
            number += 1
        report.faults += orphans.faults(wait=True)
    report.seconds = time.monotonic() - started
    return report


class Kills:
    """Of one command, compared with the facts of an undisturbed run."""

    def __init__(
        self, scenario: Scenario, victim: Victim, facts: Any, pace: Pace, orphans: Orphans, report: Report
    ) -> None:
        self.scenario, self.victim, self.facts, self.pace = scenario, victim, facts, pace
        self.orphans, self.report, self.outcome = orphans, report, f"killed ({victim})"

    def case(self, out: Path, label: str, rng: random.Random) -> None:
        """Kill one command a few times, then let it end."""
        number = rng.randint(1, MAX_KILLS)
        if self.victim == "driver":
            ended = self._kill_driver(out, label, rng, number)
        else:
            ended = self._kill_workers(out, label, rng, number)
        assert ended.code == 0, f"exit {ended.code}: {ended.text[-3000:]}"
        assert same(self.scenario.facts(out), self.facts), "differs from an undisturbed run"
        left = [str(path.relative_to(out)) for path in out.rglob("*.tmp")]
        assert not left, f"left behind: {left}"

    def _kill_driver(self, out: Path, label: str, rng: random.Random, number: int) -> Ended:
        """Start the command again at once after each kill, while the processes of the old Ray still end."""
        for repeat in range(number):
            ended = self._count(_command(self.scenario, out, [self.pace.strike("driver", rng)]))
            if not ended.strikes:
                if not repeat:
                    self.pace = Pace.of(ended)
                return ended
            self.orphans.add(label, ended.processes)
            before = self.scenario.check(out, self.facts)
        ended = _command(self.scenario, out)
        self.scenario.check_continued(out, before)
        return ended

    def _kill_workers(self, out: Path, label: str, rng: random.Random, number: int) -> Ended:
        strikes = [self.pace.strike(self.victim, rng) for _ in range(number)]
        ended = self._count(_command(self.scenario, out, strikes))
        self.orphans.add(label, ended.processes)
        if not ended.strikes:
            self.pace = Pace.of(ended)
        elif self.scenario.name == "compare" and ended.code == self.scenario.failed_code:
            before = self.scenario.check(out, self.facts)
            ended = _command(self.scenario, out)
            self.scenario.check_continued(out, before)
        return ended

    def _count(self, ended: Ended) -> Ended:
        self.report.outcomes[self.outcome] += ended.strikes
        self.report.outcomes["ended before"] += not ended.strikes
        return ended


def _command(scenario: Scenario, out: Path, strikes: Sequence[Strike] = ()) -> Ended:
    """Run the command to its end, or to that of its driver."""
    command, log = [sys.executable, "-m", "animalclf.cli", *scenario.arguments(out)], out.with_suffix(".log")
    started, left, first_file = time.monotonic(), list(strikes), None
    processes: set[psutil.Process] = set()
    # Not a cluster that happens to run on this machine; and Ray never removes the folders of killed drivers.
    environment = {**os.environ, "RAY_ADDRESS": "local", "RAY_TMPDIR": str(out.parent)}
    with open(log, "w") as file:
        driver = subprocess.Popen(command, env=environment, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    while driver.poll() is None:
        time.sleep(0.02)
        seconds = time.monotonic() - started
        if first_file is None and any(path.is_file() for path in out.rglob("*")):
            first_file = seconds
        for strike in [strike for strike in left if strike.is_due(seconds, first_file)]:
            processes |= _descendants(driver.pid)
            if strike.kill(driver):
                left.remove(strike)
        if seconds > TIMEOUT:
            driver.kill()
            driver.wait()
            raise AssertionError(f"hangs: {log.read_text(errors='replace')[-3000:]}")
    seconds, text = time.monotonic() - started, log.read_text(errors="replace")
    strikes_done = len(strikes) - len(left)
    return Ended(
        driver.returncode, seconds, text, strikes_done, seconds if first_file is None else first_file, processes
    )


def _descendants(pid: int) -> set[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return set(psutil.Process(pid).children(recursive=True))
    return set()


def _is_worker(process: psutil.Process) -> bool:
    """Not an agent, without which its node is lost."""
    with contextlib.suppress(psutil.Error, IndexError):
        name = process.cmdline()[0]
        return name.startswith("ray::") and "Agent" not in name
    return False


def _is_busy(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error, IndexError):
        return process.cmdline()[0] != "ray::IDLE"
    return False


def same(value: Any, expected: Any) -> bool:
    """Whether both are equal up to the last digits of their numbers."""
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(same(value[key], expected[key]) for key in value)
    if isinstance(value, list | tuple):
        return len(value) == len(expected) and all(same(*pair) for pair in zip(value, expected, strict=True))
    if isinstance(value, float):
        return abs(value - expected) <= 1e-3 * max(abs(value), abs(expected))
    return bool(value == expected)
