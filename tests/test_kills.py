"""Commands that are killed, or whose disk is full, at random instants; more of them: make test-kill COUNT=100."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kills.scenarios import SCENARIOS

TESTS = Path(__file__).parent
KILLS = {"train": 4, "prepare": 2, "predict": 2, "report": 1, "compare": 1}  # and as many full disks


@pytest.mark.parametrize("name", [kind.name for kind in SCENARIOS])
def test_an_interrupted_command_is_repeated_to_the_same_end(name):
    # In a process of its own: copies of one that has run PyTorch's threads crash.
    command = [sys.executable, "-m", "kills", name, "--count", str(KILLS[name])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{name}, kill" in ended.stdout and f"{name}, full" in ended.stdout
