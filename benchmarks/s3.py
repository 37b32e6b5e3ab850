"""What S3 costs in training: `animalclf train` with prepared set and run folder in a bucket, against the same on local disk, epochs after the first.

    python -m benchmarks.s3                     big CNN, 480 pictures, 3 epochs, each way twice in turn; a local S3 server (moto, of the test extra)
    python -m benchmarks.s3 --repeat 3 --json s3.json

Whole epochs count: steps, validation, and what of the writing of checkpoints does not happen beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from animalclf.runs import Run
from benchmarks.overhead import run

SERVER = Path(__file__).parents[1] / "tests" / "s3_server.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=480, help="demo pictures drawn (default: 480)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, str(SERVER), "127.0.0.1", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    os.environ.update(settings)
    try:
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(folder, arguments.pictures, arguments.epochs, arguments.repeat)
    finally:
        server.kill()
    Console(width=110).print(
        f"epochs after the first: {figures['local_s']:.1f} s on local disk, {figures['s3_s']:.1f} s in a bucket; S3 is {figures['ratio']:.0%} as fast"
    )
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=1)


def measure(folder: str, pictures: int, epochs: int, repeat: int) -> dict[str, Any]:
    """Median seconds of an epoch after the first each way, and the median over rounds of their ratio."""
    import boto3

    time.sleep(3)
    boto3.client("s3").create_bucket(Bucket="bench")
    command = [sys.executable, "-m", "animalclf.cli"]
    run(
        [
            *command,
            "demo",
            "--only-data",
            "--data",
            f"{folder}/demo",
            "--pictures",
            str(pictures),
            "--test-pictures",
            "10",
        ]
    )
    rounds: dict[str, list[float]] = {"local": [], "s3": []}
    for turn in range(repeat):
        for name, root in (("local", folder), ("s3", "s3://bench")):
            where = ["--prepared", f"{root}/prepared", "--out", f"{root}/run{turn}"]
            run([*command, "train", "--cpu", "--data", f"{folder}/demo", *where, "--set", f"train.epochs={epochs}"])
            rounds[name].append(statistics.median(row.seconds for row in Run(f"{root}/run{turn}").metrics()[1:]))
    ratio = statistics.median(local / s3 for local, s3 in zip(rounds["local"], rounds["s3"], strict=True))
    return {
        "pictures": pictures,
        "local_s": statistics.median(rounds["local"]),
        "s3_s": statistics.median(rounds["s3"]),
        "ratio": ratio,
    }


if __name__ == "__main__":
    main()
