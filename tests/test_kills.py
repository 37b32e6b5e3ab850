"""Commands that are killed, or whose disk is full, at random instants; more of them: make test-kill COUNT=100."""

import os
import subprocess
import sys
from pathlib import Path

from kills.scenarios import SCENARIOS

TESTS = Path(__file__).parent
KILLS = {"train": 4, "prepare": 2, "predict": 2, "report": 1, "compare": 1}  # and as many full disks


def test_interrupted_commands_are_repeated_to_the_same_end():
    # In a process of its own: copies of one that has run PyTorch's threads crash. One for all, because it imports.
    assert [*KILLS] == [kind.name for kind in SCENARIOS]
    command = [sys.executable, "-m", "kills", *(f"{name}={count}" for name, count in KILLS.items())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert all(f"{name}, {mode}" in ended.stdout for name in KILLS for mode in ("kill", "full"))
