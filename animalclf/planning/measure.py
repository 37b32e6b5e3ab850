"""Timed steps of a training on a sample of its images: the real model, optimizer, input and files, in a process of its
own, whose memory is what a worker needs.

`run` writes the task into a temporary folder; the process reads it there and writes the answer beside it.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from animalclf.errors import UserError
from animalclf.planning.sample import PrepareSeconds, SampleAnswer, SampleTask

TASK, ANSWER = "task.pickle", "measured.pickle"


def run(task: SampleTask) -> SampleAnswer:
    """Measure in a new process. The answer has an `error` for what the training would fail by."""
    with tempfile.TemporaryDirectory(prefix="animalclf-plan-", ignore_cleanup_errors=True) as folder:
        Path(folder, TASK).write_bytes(pickle.dumps(task))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        code = f"from {__name__} import main; main({folder!r})"
        process = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, errors="replace"
        )
        answer = Path(folder, ANSWER)
        if not answer.exists():
            return SampleAnswer(None, PrepareSeconds(), error=_failure(task, process))
        result: SampleAnswer = pickle.loads(answer.read_bytes())
        return result


def _failure(task: SampleTask, process: subprocess.CompletedProcess[str]) -> str:
    lines = process.stderr.strip().splitlines()
    reason = lines[-1] if lines else ""
    if process.returncode == -9 or "out of memory" in reason.lower():
        return (
            f"{task.config.name}: a step of {task.batch_size} images on one worker does not fit into memory; "
            f"lower train.batch_size (now {task.config.train.batch_size}) or model.input_size, or compute a step in "
            f"pieces with train.accumulate={2 * task.config.train.accumulate}"
        )
    return f"{task.config.name}: the timed steps failed ({reason or f'exit status {process.returncode}'})"


def main(folder: str) -> None:
    """Measure the task in `folder`."""
    task: SampleTask = pickle.loads(Path(folder, TASK).read_bytes())
    started = time.perf_counter()
    from animalclf.planning.steps import measure_steps

    imports = time.perf_counter() - started
    try:
        answer = measure_steps(task, folder, imports)
    except UserError as error:
        answer = SampleAnswer(None, PrepareSeconds(), error=str(error))
    Path(folder, ANSWER).write_bytes(pickle.dumps(answer))
