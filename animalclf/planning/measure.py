"""The process of a rehearsal, which starts and ends as a command does.

`run` writes the task into a temporary folder; the process reads it there and writes the answer beside it.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil

from animalclf.data.disk_cache import CACHE_VARIABLE
from animalclf.errors import UserError
from animalclf.planning.rehearsal import rehearse
from animalclf.planning.sample import PrepareSeconds, SampleAnswer, SampleTask
from animalclf.raycompat.patches import OWN_RAY_VARIABLE
from animalclf.utils.process_variables import process_variables

TASK, ANSWER = "task.pickle", "measured.pickle"


def run(task: SampleTask) -> SampleAnswer:
    """Rehearse in a new process. The answer has an `error` for what the training would fail by."""
    with tempfile.TemporaryDirectory(prefix="animalclf-plan-", ignore_cleanup_errors=True) as folder:
        Path(folder, TASK).write_bytes(pickle.dumps(task))
        # As in a command: its parser imports the modules of all commands.
        code = f"from animalclf.cli import build_parser; build_parser(); from {__name__} import main; main({folder!r})"
        process = subprocess.run(
            [sys.executable, "-c", code],
            env=_environment(task, folder),
            capture_output=True,
            text=True,
            errors="replace",
        )
        ended, file = time.time(), Path(folder, ANSWER)
        if not file.exists():
            return SampleAnswer(None, PrepareSeconds(), error=_failure(task, process))
        answer: SampleAnswer = pickle.loads(file.read_bytes())
        if not answer.measured:
            return answer
        fixed = answer.measured.fixed
        end = fixed["end"] + max(0.0, ended - answer.ended)
        return replace(answer, measured=replace(answer.measured, fixed={**fixed, "end": end}))


def _environment(task: SampleTask, folder: str) -> dict[str, str]:
    """Of a command that starts a Ray, or of a worker on a node of a cluster; its cache is in `folder`."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RAY_ADDRESS": "local"}
    variables[CACHE_VARIABLE] = os.path.join(folder, "cache")
    variables.pop(OWN_RAY_VARIABLE, None)
    return variables if task.starts_ray else {**variables, **process_variables(), "OMP_NUM_THREADS": "1"}


def _failure(task: SampleTask, process: subprocess.CompletedProcess[str]) -> str:
    lines = process.stderr.strip().splitlines()
    reason = lines[-1] if lines else ""
    if process.returncode == -9 or "out of memory" in reason.lower():
        return (
            f"{task.config.name}: a step of {task.batch_size} images on one worker does not fit into memory; "
            f"lower train.batch_size (now {task.config.train.batch_size}) or model.input_size, or compute a step in "
            f"pieces with train.accumulate={2 * task.config.train.accumulate}"
        )
    return f"{task.config.name}: the rehearsal failed ({reason or f'exit status {process.returncode}'})"


def main(folder: str) -> None:
    """Rehearse the task in `folder`."""
    task: SampleTask = pickle.loads(Path(folder, TASK).read_bytes())
    try:
        answer = rehearse(task, folder, psutil.Process().create_time())
    except UserError as error:
        answer = SampleAnswer(None, PrepareSeconds(), error=str(error))
    Path(folder, ANSWER).write_bytes(pickle.dumps(answer))
