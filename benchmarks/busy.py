"""Training steps on a machine with other load: the threads of a step wait for each other, and how they wait matters.

    python -m benchmarks.busy
    python -m benchmarks.busy --threads 4 --others 0 1 2 --json busy.json

Steps of the demo's network (batches of 16 images) in a process of the niceness of Ray's workers, beside `--others`
other processes that each keep a core busy; with libgomp's default, with animalclf's setting
(utils/process_variables.py), and with one thread.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

from animalclf.utils.process_variables import PROCESS_VARIABLES
from benchmarks.common import argument_parser, write_json

NAME = "GOMP_SPINCOUNT"
NICENESS = 15  # of Ray's workers
BATCH = 16


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--others", type=int, nargs="+", default=[0, 1], help="busy processes (default: 0 and 1)")
    parser.add_argument("--threads", type=int, default=2, help="of a step (default: 2)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement (default: 10)")
    parser.add_argument("--task", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        print(milliseconds_per_step(arguments.threads, arguments.seconds))
        return
    results = {others: measure(others, arguments.threads, arguments.seconds) for others in arguments.others}
    show(results, arguments.threads)
    write_json(arguments.json, results)


def measure(others: int, threads: int, seconds: float) -> dict[str, float]:
    """Milliseconds per step: libgomp's default with `threads`, animalclf's setting, and one thread."""
    default = {name: value for name, value in os.environ.items() if name not in (NAME, "OMP_WAIT_POLICY")}
    ours = {**default, NAME: PROCESS_VARIABLES[NAME]}
    with busy(others):
        return {
            name: run(count, seconds, environment)
            for name, count, environment in (
                ("default", threads, default),
                ("animalclf", threads, ours),
                ("one thread", 1, default),
            )
        }


@contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` processes that each keep a core busy."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(threads: int, seconds: float, environment: dict[str, str]) -> float:
    command = [sys.executable, "-m", "benchmarks.busy", "--task", "--threads", str(threads), "--seconds", str(seconds)]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def milliseconds_per_step(threads: int, seconds: float) -> float:
    """The mean over as many steps as fit into `seconds`, in this process."""
    import torch
    import torch.nn.functional as F

    from animalclf import config as configuration
    from animalclf.models import build
    from animalclf.training.loop import autocast, choose_bf16
    from animalclf.training.optim import make_optimizer

    os.nice(NICENESS)
    torch.set_num_threads(threads)
    spec, device = configuration.load("demo"), torch.device("cpu")
    model = build(spec.model, 10).train().to(memory_format=torch.channels_last)
    optimizer, bf16 = make_optimizer(model.parameters(), spec.optim), choose_bf16("auto", device)
    images = torch.randint(0, 256, (BATCH, spec.model.input_size, spec.model.input_size, 3), dtype=torch.uint8)
    labels = torch.randint(0, 10, (BATCH,))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, bf16):
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    step()
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    return (time.perf_counter() - started) / steps * 1000


def show(results: dict[int, dict[str, float]], threads: int) -> None:
    table = Table(title=f"milliseconds per step, {threads} threads, {os.cpu_count()} cores", title_justify="left")
    table.add_column("other processes", justify="right")
    for name in next(iter(results.values())):
        table.add_column(name, justify="right")
    for others, row in results.items():
        table.add_row(str(others), *(f"{milliseconds:.0f}" for milliseconds in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
