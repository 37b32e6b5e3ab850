"""Interrupts a command at random instants, and checks that the same command then ends with the facts of an undisturbed
run. Commands run in copies of this process (fork), so that an instant takes less than a second."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from kills import in_process
from kills.faults import Fault, Operations
from kills.scenarios import Scenario

Mode = Literal["kill", "full"]
MAX_FAULTS = 3  # of one command, before it may end
TIMEOUT = 300.0


@dataclass
class Report:
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count:,} {name}" for name, count in sorted(self.outcomes.items()))
        return f"{outcomes}; {self.seconds:.0f} s; {len(self.faults)} faults"


@dataclass(frozen=True)
class Ended:
    """A command that ended: its exit code (negative: the signal), its seconds, and what it printed."""

    code: int
    seconds: float
    text: str
    strikes: int = 0
    """Processes that were killed."""
    first_file: float = 0.0
    """Seconds until the first file."""
    processes: set[Any] = field(default_factory=set)
    """Those that the command had when a process was killed."""


class Interruptions:
    """Of one command, whose inputs and undisturbed run are made first, in a temporary folder."""

    def __init__(self, kind: type[Scenario]) -> None:
        self.temporary = tempfile.TemporaryDirectory(prefix="animalclf-kills-")
        self.folder = Path(self.temporary.name).resolve()
        self.scenario = scenario = kind(self.folder / "inputs")
        ended = fork(lambda: scenario.create_inputs() or 0, self.folder / "log")  # type: ignore[func-returns-value]
        assert ended.code == 0, ended.text
        first, _ = _command(scenario, self.folder / "first", None)  # slower than the others: it imports
        assert first.code == 0, first.text
        undisturbed, self.operations = _command(scenario, self.folder / "undisturbed", None)
        self.facts, self.seconds = scenario.facts(self.folder / "undisturbed"), undisturbed.seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.temporary.cleanup()

    def run(self, mode: Mode, count: int, seed: int, first: int = 0) -> Report:
        """Interrupt `count` times. `mode`: see faults.Fault; half of the kills are at an instant of the clock."""
        report, started, number = Report(), time.monotonic(), first
        while _struck(report, mode) < count and number - first < 10 * count:
            out, name = self.folder / f"out-{number}", f"{self.scenario.name} {mode} {number}"
            try:
                self._interrupt(out, random.Random(f"{seed} {name}"), mode, report)
            except Exception as error:  # noqa: BLE001 - every exception is a fault
                frame = traceback.extract_tb(error.__traceback__)[-1]
                report.faults.append(f"{name}: {type(error).__name__}: {error} (line {frame.lineno})")
            shutil.rmtree(out, ignore_errors=True)
            number += 1
        report.seconds = time.monotonic() - started
        return report

    def _interrupt(self, out: Path, rng: random.Random, mode: Mode, report: Report) -> None:
        """Interrupt one command a few times, then let it end."""
        scenario = self.scenario
        for _ in range(rng.randint(1, MAX_FAULTS)):
            if mode == "full" or rng.random() < 0.5:
                ended, _ = _command(scenario, out, Fault(mode, rng.randrange(self.operations)))
            else:
                ended, _ = _command(scenario, out, None, kill_after=rng.random() * self.seconds)
            report.outcomes["killed" if ended.code == -signal.SIGKILL else f"exit {ended.code}"] += 1
            if mode == "full":
                _check_full(scenario, ended, out)
            else:
                assert ended.code in (0, -signal.SIGKILL), f"exit {ended.code}: {ended.text[-2000:]}"
            before = scenario.check(out, self.facts)
            if ended.code == 0:
                assert scenario.facts(out) == self.facts, "differs after it ended"
                return
        ended, _ = _command(scenario, out, None)
        assert ended.code == 0, f"exit {ended.code} of the repeated command: {ended.text[-2000:]}"
        assert scenario.facts(out) == self.facts, "differs from an undisturbed run"
        scenario.check_continued(out, before)
        left = [str(path.relative_to(out)) for path in out.rglob("*.tmp")]
        assert not left, f"left behind: {left}"


def _struck(report: Report, mode: Mode) -> int:
    """The number of commands that the fault reached before their end."""
    return report.outcomes["killed"] if mode == "kill" else report.outcomes.total() - report.outcomes["exit 0"]


def _check_full(scenario: Scenario, ended: Ended, out: Path) -> None:
    """The exit code and message of a command whose disk was full (it may not have needed the file)."""
    text = " ".join(ended.text.split())
    assert ended.code in (0, scenario.failed_code, 2), f"exit {ended.code}: {ended.text[-2000:]}"
    if ended.code:
        assert "Traceback" not in text, ended.text[-2000:]
        assert str(out) in text and "No space left on device" in text and "free space" in text, ended.text[-2000:]


def _command(scenario: Scenario, out: Path, fault: Fault | None, kill_after: float | None = None) -> tuple[Ended, int]:
    """Run the command of a scenario. Returns how it ended, and its number of operations below `out`."""
    out.mkdir(exist_ok=True)
    counted = out.with_name(f"{out.name}-operations")
    arguments = scenario.arguments(out)

    def command() -> int:
        from animalclf.cli import main

        tempfile.tempdir = str(out / "temporary")
        os.makedirs(tempfile.tempdir, exist_ok=True)
        in_process.replace_ray()
        operations = Operations(str(out), fault)
        code = main(arguments)
        part = counted.with_suffix(".part")  # this process may be killed here too
        part.write_text(json.dumps([operations.count, list(sys.modules)]))
        part.replace(counted)
        return code

    counted.unlink(missing_ok=True)
    ended = fork(command, out.with_name(f"{out.name}.log"), kill_after)
    shutil.rmtree(out / "temporary", ignore_errors=True)
    count, modules = json.loads(counted.read_text()) if counted.exists() else (0, [])
    for name in modules:  # so that the next copies of this process have them already
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    return ended, count


def fork(function: Callable[[], int], log: Path, kill_after: float | None = None) -> Ended:
    """Call `function` in a copy of this process, which is killed after `kill_after` seconds."""
    import torch

    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    started = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        _become(function, log)
    while True:
        time.sleep(0.001)
        ended, status = os.waitpid(pid, os.WNOHANG)
        seconds = time.monotonic() - started
        if ended:
            break
        if (kill_after is not None and seconds > kill_after) or seconds > TIMEOUT:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            break
    text = log.read_text(errors="replace") if log.exists() else ""
    assert seconds < TIMEOUT, f"hangs: {text[-2000:]}"
    return Ended(os.waitstatus_to_exitcode(status), seconds, text)


def _become(function: Callable[[], int], log: Path) -> None:
    """In the copy: write to `log`, and end with the exit code that `function` returns."""
    code = 70
    try:
        gc.disable()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdin = open(os.devnull)  # noqa: SIM115 - until the process ends
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        code = function()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - printed to the log
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)
