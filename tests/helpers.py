"""Small prepared sets without the prepare job, and other helpers of tests."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from animalclf import config as configuration
from animalclf.commands.compare import flag_values
from animalclf.data import prepared_set
from animalclf.data.shards import write_shard
from animalclf.rows import EpochRow
from animalclf.tuning.spec import ComparisonSpec
from animalclf.tuning.spec_parsing import build_spec, comparison_tree
from animalclf.utils import storage


def tiny_prepared(
    root: Path,
    counts: tuple[int, ...] = (30, 20, 10),
    size: int = 40,
    val: float = 0.25,
    seed: int = 0,
    shard_rows: int = 16,
    store: str = "pixels",
    names: Sequence[str] = (),
) -> prepared_set.Prepared:
    """A prepared set of noisy squares: class c is a bright square in its own corner, which a small network learns."""
    root.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    total = len(labels)
    images = generator.integers(0, 90, (total, size, size, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        x, y = (label % 2) * size // 2, (label // 2 % 2) * size // 2
        image[y + 2 : y + size // 2 - 2, x + 2 : x + size // 2 - 2] += 120
    names = list(names) or [f"class{number}" for number in range(len(counts))]
    splits = np.where(np.arange(total) % round(1 / val) == 0, "val", "train") if val else np.full(total, "train")
    order = generator.permutation(total)
    shard, row = np.empty(total, np.int32), np.empty(total, np.int32)
    shards = []
    for number, start in enumerate(range(0, total, shard_rows)):
        rows = order[start : start + shard_rows]
        shard[rows], row[rows] = number, np.arange(len(rows))
        write_shard(str(root / f"shard-{number:05d}.parquet"), zip(rows, images[rows], strict=True), store)
        shards.append({"file": f"shard-{number:05d}.parquet", "rows": len(rows)})
    manifest = pd.DataFrame(
        {
            "path": [f"{names[label]}/{number:04d}.jpg" for number, label in enumerate(labels)],
            "label": [names[label] for label in labels],
            "split": splits,
            "status": "ok",
            "shard": shard,
            "row": row,
        }
    )
    storage.write_table(str(root / prepared_set.MANIFEST), manifest)
    settings = configuration.to_dict(configuration.Data(stored_size=size, store=store))
    info = {
        "format": prepared_set.FORMAT,
        "classes": names,
        "stored_size": size,
        "fingerprint": f"tiny-{seed}",
        "config": settings,
        "source": "made by a test",
        "shards": shards,
    }
    storage.write_json(str(root / prepared_set.INFO), info)
    return prepared_set.open_prepared(str(root))


def terminate_all(pid: int) -> None:
    """SIGTERM to every process of a command, as systemd and Slurm send it: to those that it started first."""
    command = psutil.Process(pid)
    for process in (*command.children(recursive=True), command):
        with contextlib.suppress(psutil.Error):  # one that has just ended
            process.terminate()


def ray_processes(name: str) -> list[int]:
    """The ids of the processes with `name` in their command line, of the Ray that this process started."""
    pids = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # one that has just ended
            if name in " ".join(process.cmdline()):
                pids.append(process.pid)
    return pids


def train_workers() -> list[int]:
    """The ids of the processes of the training workers."""
    return ray_processes("TrainWorker") + ray_processes("TrainingWorker")


def tiny_config(epochs: int = 2, **sets: object) -> configuration.Config:
    """The big CNN at its smallest input with settings for seconds, not hours; `sets` as in train__batch_size=8."""
    base = {
        "data.stored_size": 92,
        "model.input_size": 92,
        "train.epochs": epochs,
        "train.batch_size": 16,
        "train.precision": "fp32",
        "train.threads": 1,
        "optim.lr": 1e-4,
    }
    base |= {key.replace("__", "."): value for key, value in sets.items()}
    return configuration.load("big_cnn", base)


# The network with the cheapest epoch, and without torchvision, whose import takes a worker more than a second. Its
# layers are too small for two threads, which wait for each other by spinning.
LITE: dict[str, object] = {
    "model.name": "efficientnet_lite0", "model.input_size": 32, "data.stored_size": 40, "train.threads": 1,
}  # fmt: skip


def lite_config(epochs: int = 2, **sets: object) -> configuration.Config:
    """`tiny_config` with the network LITE, from random weights."""
    return tiny_config(epochs, **{key.replace(".", "__"): value for key, value in LITE.items()}, **sets)


def spec_of(file: str = "", *, overrides: dict[str, Any] | None = None, **flags: Any) -> ComparisonSpec:
    """The comparison that the flags of `animalclf compare` describe (`grid` and `search` as lists of KEY=VALUE)."""
    text = {name: flags.pop(name) for name in ("recipes", "seeds", "grid", "search") if name in flags}
    return build_spec(comparison_tree(file, set=overrides, **flag_values(**text), **flags))


def without_times(row: EpochRow) -> dict[str, float]:
    """An epoch's row without the times and speeds, which differ from one run to the next."""
    speeds = ("images_per_s", "wait_fraction")
    return {key: value for key, value in row.to_dict().items() if not key.endswith("seconds") and key not in speeds}


def train_command(prepared: prepared_set.Prepared, out: Path, epochs: int, *flags: str) -> list[str]:
    """`animalclf train` of the network LITE into the run folder `out`."""
    sets = {**LITE, "train.batch_size": 16, "train.epochs": epochs, "train.precision": "fp32", "optim.lr": "1e-4"}
    words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    train = [sys.executable, "-m", "animalclf.cli", "train", "--recipe", "big_cnn", "--data", prepared.root]
    return [*train, "--out", str(out), *flags, *words]


def after_its_first_epoch(command: list[str], run: Path) -> subprocess.Popen[str]:
    """The process of a training into the folder `run`, which has finished an epoch or ended; killed after 240 s."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 240
    while not (run / "metrics.jsonl").exists() and process.poll() is None:
        if time.monotonic() > until:
            process.kill()
        time.sleep(0.05)
    return process


def remaining(poll: Callable[[], Any]) -> Any:
    """The result of `poll()` once it is empty or zero, or after 30 s."""
    deadline = time.monotonic() + 30
    while (result := poll()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return result


HOLD = """
import sys, time
from animalclf.folder_lock import locked
with locked(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another_process(folder) -> Iterator[subprocess.Popen]:
    """A process that locks `folder` until its standard input ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], text=True, **pipes)
    try:
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        process.communicate(timeout=30)
