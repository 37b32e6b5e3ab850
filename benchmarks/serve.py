"""Latency and requests/s of `animalclf serve`, beside a bare loop of the same model over the same files.

    python -m benchmarks.serve runs/a --data photos/                     1, 8 and 32 clients, 10 s each
    python -m benchmarks.serve runs/a --data photos/ --clients 200 --replicas 2 --json serve.json

    python -m benchmarks.serve runs/a --data photos/ --clients 1,40 --replicas 1:2     grows and shrinks

The loop decodes and classifies files in this process, with the threads of a replica: one file at a time, and in batches
as large as those of a replica. Each client sends one file a request, over a connection that stays open, and waits for
the answer. Clients and server share the machine. With a range of replicas their number after each load is shown, and at
the end the time until it is the smallest again.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from animalclf.serving.classifier import Classifier
from animalclf.serving.replica import MAX_BATCH, set_threads
from animalclf.serving.uploads import Upload
from benchmarks.common import argument_parser, write_json

MAX_FILES = 200
SHRINK_SECONDS = 180


@dataclass(frozen=True)
class Timing:
    what: str
    requests: int
    per_s: float
    p50_ms: float
    p99_ms: float
    replicas: int = 0

    @classmethod
    def of(cls, what: str, seconds: Sequence[float], total: float, images: int = 1) -> Timing:
        """From the seconds of each request (of `images` images) and of all together."""
        p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
        return cls(what, len(seconds) * images, len(seconds) * images / total, float(p50), float(p99))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("run", help="the run folder of a finished training")
    parser.add_argument("--data", required=True, help="a folder of image files")
    parser.add_argument("--clients", default="1,8,32", help="clients at a time (default: %(default)s)")
    parser.add_argument("--replicas", default="1")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement (default: %(default)s)")
    arguments = parser.parse_args()
    files = sorted(path for path in Path(arguments.data).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    contents = [path.read_bytes() for path in files[:: max(1, len(files) // MAX_FILES)][:MAX_FILES]]
    if not contents:
        sys.exit(f"{arguments.data}: no JPEG or PNG files")
    timings = measure(arguments, contents)
    show(timings, contents, arguments.replicas)
    write_json(arguments.json, {"timings": [vars(timing) for timing in timings]})


def measure(arguments: argparse.Namespace, contents: list[bytes]) -> list[Timing]:
    set_threads(1)
    classifier = Classifier(arguments.run)
    loop(classifier, contents, 1, 1.0)  # warms up, as the server below
    timings = [loop(classifier, contents, size, arguments.seconds) for size in (1, MAX_BATCH)]
    with server(arguments.run, arguments.replicas) as (url, token, process):
        ask(url, token, contents, 1, 2.0)
        for clients in map(int, arguments.clients.split(",")):
            timing = ask(url, token, contents, clients, arguments.seconds)
            timings.append(replace(timing, replicas=replicas_of(process)))
        wait_until_fewest(process, int(arguments.replicas.partition(":")[0]))
    return timings


def replicas_of(process: int) -> int:
    """The replicas that the server `process` has."""
    family = psutil.Process(process).children(recursive=True)
    return sum("ServeReplica" in " ".join(child.cmdline()) for child in family)


def wait_until_fewest(process: int, minimum: int) -> None:
    """Print how long a server without load takes to have its smallest number of replicas."""
    started, before = time.perf_counter(), replicas_of(process)
    while (now := replicas_of(process)) > minimum and time.perf_counter() - started < SHRINK_SECONDS:
        time.sleep(1)
    if before > minimum:
        print(f"replicas without load: {before}, after {time.perf_counter() - started:.0f} s {now}")


def loop(classifier: Classifier, contents: list[bytes], size: int, limit: float) -> Timing:
    """Batches of `size` files in this process."""
    seconds: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < limit:
        at = len(seconds) * size
        before = time.perf_counter()
        views = [classifier.view(Upload("", contents[n % len(contents)])) for n in range(at, at + size)]
        classifier.scores([view for view in views if isinstance(view, np.ndarray)])
        seconds.append(time.perf_counter() - before)
    what = "bare loop, one image at a time" if size == 1 else f"bare loop, batches of {size}"
    return Timing.of(what, seconds, time.perf_counter() - started, size)


@contextmanager
def server(run: str, replicas: str) -> Iterator[tuple[str, str, int]]:
    """Address, token and process of the command."""
    command = [sys.executable, "-m", "animalclf.cli", "serve", run, "--port", "0", "--replicas", replicas]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        matches = (re.match(r"serving (\S+)  token (\S+)", line) for line in process.stderr)
        match = next((match for match in matches if match), None)
        if match is None:
            sys.exit(f"{' '.join(command)} ended; run it to see why")
        yield match[1], match[2], process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def ask(url: str, token: str, contents: list[bytes], clients: int, limit: float) -> Timing:
    """`clients` threads that send the files in turn."""
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="x.jpg"\r\n\r\n'
    bodies = [head + content + b"\r\n--x--\r\n" for content in contents]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "multipart/form-data; boundary=x"}
    seconds: list[float] = []
    started = time.perf_counter()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=120)
        while time.perf_counter() - started < limit:
            before = time.perf_counter()
            connection.request("POST", "/predict", bodies[number % len(bodies)], headers)
            response = connection.getresponse()
            response.read()
            seconds.append(time.perf_counter() - before)
            assert response.status == 200, response.status
            number += clients

    threads = [threading.Thread(target=client, args=[number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Timing.of(f"serve, {clients} client{'s' * (clients > 1)}", seconds, time.perf_counter() - started)


def show(timings: list[Timing], contents: list[bytes], replicas: str) -> None:
    size = sum(map(len, contents)) / len(contents) / 1e3
    title = f"{len(contents)} files of {size:.0f} KB on average, replicas {replicas}, {os.cpu_count()} CPUs"
    table = Table(title=title, title_justify="left")
    for heading in ("", "images", "images/s", "p50 (ms)", "p99 (ms)", "replicas"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in timings:
        times = (f"{value:.1f}" for value in (row.per_s, row.p50_ms, row.p99_ms))
        table.add_row(row.what, f"{row.requests:,}", *times, str(row.replicas or ""))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
