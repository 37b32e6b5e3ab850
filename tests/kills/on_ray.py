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
from pathlib import Path
from typing import Any, Literal, get_args

import psutil

from kills.runner import Ended, Report, fork
from kills.scenarios import Compare, Facts, Predict, Prepare, Scenario, Train

SETTINGS = {
    "model.name": "resnet18",
    "model.weights": "none",
    "model.input_size": 32,
    "data.stored_size": 40,
    "train.epochs": 4,
    "train.batch_size": 16,
    "train.precision": "fp32",
    "optim.lr": 0.001,
}
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
    settings = SETTINGS | {"train.epochs": 2}


SCENARIOS: Sequence[type[Scenario]] = (RayTrain, Prepare, RayPredict, RayCompare)


def run(kind: type[Scenario], victim: Victim, count: int, seed: int, first: int = 0) -> Report:
    """Kill `count` times. A killed driver is started again; a killed worker must not end the command. One may end a
    trial of a comparison, which is started again too."""
    report, started = Report(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="animalclf-kills-") as temporary:
        folder = Path(temporary).resolve()
        scenario = kind(folder / "inputs")
        created = fork(lambda: scenario.create_inputs() or 0, folder / "log")  # type: ignore[func-returns-value]
        assert created.code == 0, created.text
        (folder / "undisturbed").mkdir()
        undisturbed = _command(scenario, folder / "undisturbed")
        assert undisturbed.code == 0, undisturbed.text
        facts = scenario.facts(folder / "undisturbed")
        for number in range(first, first + count):
            out, rng = folder / f"out-{number}", random.Random(f"{seed} {kind.name} {victim} {number}")
            out.mkdir()
            try:
                _kill(scenario, out, facts, victim, rng, undisturbed.seconds, report)
            except Exception as error:  # noqa: BLE001 - every exception is a fault
                frame = traceback.extract_tb(error.__traceback__)[-1]
                report.faults.append(f"{kind.name} {victim} {number}: {type(error).__name__}: {error} ({frame.lineno})")
            shutil.rmtree(out, ignore_errors=True)
    report.seconds = time.monotonic() - started
    return report


def _kill(
    scenario: Scenario, out: Path, facts: Facts, victim: Victim, rng: random.Random, seconds: float, report: Report
) -> None:
    ended = _command(scenario, out, (victim, rng.uniform(0, seconds), rng))
    report.outcomes[f"killed ({victim})" if ended.struck else "ended before"] += 1
    continued = victim == "driver" or (scenario.name == "compare" and ended.code == scenario.failed_code)
    if continued and ended.struck:
        before = scenario.check(out, facts)
        ended = _command(scenario, out)
        scenario.check_continued(out, before)
    assert ended.code == 0, f"exit {ended.code}: {ended.text[-3000:]}"
    assert same(scenario.facts(out), facts), "differs from an undisturbed run"
    left = [str(path.relative_to(out)) for path in out.rglob("*.tmp")]
    assert not left, f"left behind: {left}"


def _command(scenario: Scenario, out: Path, strike: tuple[Victim, float, random.Random] | None = None) -> Ended:
    """Run the command to its end; with `strike` kill the driver or a worker after these seconds."""
    command, log = [sys.executable, "-m", "animalclf.cli", *scenario.arguments(out)], out.with_suffix(".log")
    started, struck, processes = time.monotonic(), False, set[psutil.Process]()
    environment = {**os.environ, "RAY_ADDRESS": "local"}  # not a cluster that happens to run on this machine
    with open(log, "w") as file:
        driver = subprocess.Popen(command, env=environment, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
    while driver.poll() is None:
        time.sleep(0.02)
        seconds = time.monotonic() - started
        if strike and not struck and seconds > strike[1]:
            processes |= _descendants(driver.pid)
            struck = _strike(driver, strike[0], strike[2])
        if seconds > TIMEOUT:
            driver.kill()
    if struck:
        _, alive = psutil.wait_procs(processes, timeout=END_SECONDS)
        running = [process for process in alive if process.is_running()]
        assert not running, f"processes of Ray still run after {END_SECONDS:.0f} s: {running}"
    return Ended(driver.returncode, time.monotonic() - started, log.read_text(errors="replace"), struck)


def _strike(driver: subprocess.Popen[bytes], victim: Victim, rng: random.Random) -> bool:
    """Kill. False if no worker has work at this instant."""
    if victim == "driver":
        driver.kill()
        return True
    workers = [process for process in _descendants(driver.pid) if _is_worker(process)]
    if not any(_is_busy(process) for process in workers):
        return False  # Ray's own start waits without end for a worker that is killed before it is connected
    with contextlib.suppress(psutil.Error, IndexError):
        process = rng.choice(sorted(workers, key=lambda process: process.pid))
        process.send_signal(signal.SIGTERM if victim == "warned-worker" else signal.SIGKILL)
        return True
    return False


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
