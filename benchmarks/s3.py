"""Cost of S3 in training: epochs of `animalclf train` with prepared set and run folder in a bucket, against local disk.

    python -m benchmarks.s3                     big CNN, 480 images, 3 epochs, each twice; a local S3 server
    python -m benchmarks.s3 --repeat 3 --json s3.json

Epochs after the first count as a whole: steps, validation, and the part of checkpointing that is not in parallel with
them. The server is moto, of the test extra.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from animalclf.runs import Run
from benchmarks.common import animalclf, argument_parser, write_json
from benchmarks.images import write_demo

SERVER = Path(__file__).parents[1] / "tests" / "s3_server.py"
BUCKET = "s3://bench"


@dataclass(frozen=True)
class Results:
    images: int
    local_s: float
    """Median seconds of an epoch after the first."""
    s3_s: float
    ratio: float
    """local_s / s3_s, the median over rounds."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=int, default=480, help="images of the demo set (default: 480)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, s3_server():
        results = measure(folder, arguments.images, arguments.epochs, arguments.repeat)
    Console(width=110).print(
        f"epochs after the first: {results.local_s:.1f} s on local disk, {results.s3_s:.1f} s in a bucket; "
        f"S3 is {results.ratio:.0%} as fast"
    )
    write_json(arguments.json, results)


@contextmanager
def s3_server() -> Iterator[None]:
    """An S3 server with BUCKET in a process of its own, and the variables with which all find it."""
    import boto3

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(SERVER), "127.0.0.1", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        time.sleep(3)
        boto3.client("s3").create_bucket(Bucket=BUCKET.removeprefix("s3://"))
        yield
    finally:
        server.kill()
        server.wait()


def measure(folder: str, images: int, epochs: int, repeat: int) -> Results:
    photos = write_demo(f"{folder}/demo", images)
    seconds: dict[str, list[float]] = {"local": [], "s3": []}
    for turn in range(repeat):
        for name, root in (("local", folder), ("s3", BUCKET)):
            run = Run(f"{root}/run{turn}")
            folders = ["--data", photos, "--prepared", f"{root}/prepared", "--out", run.root]
            animalclf("train", "--recipe", "big_cnn", "--cpu", *folders, "--set", f"train.epochs={epochs}")
            seconds[name].append(statistics.median(row.seconds for row in run.metrics()[1:]))
    ratios = [local / s3 for local, s3 in zip(seconds["local"], seconds["s3"], strict=True)]
    return Results(
        images, statistics.median(seconds["local"]), statistics.median(seconds["s3"]), statistics.median(ratios)
    )


if __name__ == "__main__":
    main()
