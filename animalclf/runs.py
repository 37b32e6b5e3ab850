"""The run folder (local or s3://): the only place that knows its file names. A run folder alone is enough to resume,
predict and report."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import psutil

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.errors import UserError
from animalclf.rows import Environment, EpochRow, Row, TrainingResult
from animalclf.utils import storage
from animalclf.utils.caller import caller

SAME_BIRTH_SECONDS = 5.0  # a machine's clock may be set right meanwhile
STALE_SECONDS = 120  # a lock on another machine that was not renewed for so long is left over from a crash


@dataclass(frozen=True)
class LockHolder(Row):
    """The process that holds a run folder: the content of running.json."""

    host: str
    pid: int
    time: float
    """When the lock was renewed, in seconds since 1970."""
    born: float = 0.0
    """When the process began."""

    @property
    def is_this_process(self) -> bool:
        return (self.host, self.pid) == (socket.gethostname(), os.getpid())

    @property
    def is_alive(self) -> bool:
        """Whether the process runs; on another machine, whether it renewed the lock lately."""
        return (
            _alive(self.pid, self.born)
            if self.host == socket.gethostname()
            else time.time() - self.time < STALE_SECONDS
        )


@dataclass(frozen=True)
class Run:
    """A run folder by its URL. Reading raises UserError that names the missing file."""

    root: str

    def url(self, *parts: str) -> str:
        return storage.join(self.root, *parts)

    def checkpoint(self, which: str) -> str:
        """The URL of the checkpoint `best` (the model to use) or `last` (what resuming needs beside it: frozen layers
        are in `best` only)."""
        return self.url("checkpoints", f"{which}.pt")

    def has_checkpoint(self, which: str) -> bool:
        return storage.exists(self.checkpoint(which))

    def exists(self) -> bool:
        return storage.exists(self.url("config.yaml"))

    def finished(self) -> bool:
        return storage.exists(self.url("result.json"))

    def config(self) -> Config:
        return configuration.load(self._there("config.yaml"))

    def environment(self) -> Environment:
        return Environment.from_dict(storage.read_json(self._there("environment.json")))

    def metrics(self) -> list[EpochRow]:
        """The history, one row an epoch; empty before the first epoch ended."""
        try:
            lines = storage.read_bytes(self.url("metrics.jsonl")).decode().splitlines()
        except FileNotFoundError:
            return []
        return [EpochRow.from_dict(json.loads(line)) for line in lines]

    def result(self) -> TrainingResult:
        """The result of a finished training."""
        return TrainingResult.from_dict(self.read_result())

    def read_result(self) -> dict[str, Any]:
        """result.json as it is, of a training or an ensemble."""
        return dict(storage.read_json(self._there("result.json")))

    def predictions(self, name: str) -> pd.DataFrame:
        """Class probabilities of each image, as written by training (val, test), evaluate or predict."""
        return storage.parse_parquet(storage.read_bytes(self._there("predictions", f"{name}.parquet")))

    def _there(self, *parts: str) -> str:
        url = self.url(*parts)
        if not storage.exists(url):
            hint = (
                "the training did not end; continue it with --resume"
                if parts == ("result.json",) and self.exists()
                else "is it a run folder?"
            )
            raise UserError(f"{url}: not there ({hint})")
        return url

    def write_config(self, config: Config) -> None:
        storage.write_bytes(self.url("config.yaml"), configuration.to_yaml(config).encode())

    def write_environment(self, **facts: Any) -> None:
        """Versions, hardware, git commit and command, with `facts` (data fingerprint, prepared set, workers, ...)."""
        storage.write_json(self.url("environment.json"), replace(environment(), **facts).to_dict())

    def write_metrics(self, history: Sequence[EpochRow]) -> None:
        lines = "".join(json.dumps(row.to_dict(), allow_nan=False) + "\n" for row in history)
        storage.write_bytes(self.url("metrics.jsonl"), lines.encode())

    def write_result(self, result: dict[str, Any]) -> None:
        storage.write_json(self.url("result.json"), result)

    def write_predictions(self, name: str, table: pd.DataFrame) -> None:
        storage.write_table(self.url("predictions", f"{name}.parquet"), table)

    def lock(self) -> None:
        """Lock the folder for this process; call again now and then while working. Raises UserError where another
        living process holds it."""
        holder = self._holder()
        if holder and not holder.is_this_process and holder.is_alive:
            raise UserError(
                f"{self.root}: in use by process {holder.pid} on {holder.host}; wait for it, stop it, or choose another --out"
            )
        this = LockHolder(socket.gethostname(), os.getpid(), time.time(), psutil.Process().create_time())
        storage.write_json(self.url("running.json"), this.to_dict())

    def unlock(self) -> None:
        holder = self._holder()
        if holder and holder.is_this_process:
            storage.remove(self.url("running.json"))

    def _holder(self) -> LockHolder | None:
        try:
            return LockHolder.from_dict(storage.read_json(self.url("running.json")))
        except (FileNotFoundError, NotADirectoryError):
            return None


def open_run(root: str) -> Run:
    """An existing run folder. Raises UserError where there is none."""
    run = Run(storage.absolute(root))
    if not run.exists():
        raise UserError(f"{root}: no run here (config.yaml is missing); `animalclf train` makes one")
    return run


def _alive(pid: int, born: float) -> bool:
    """Whether the process still runs, and its number was not given to another since (as it soon is when a machine was
    started again)."""
    try:
        return abs(psutil.Process(pid).create_time() - born) < SAME_BIRTH_SECONDS
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def environment() -> Environment:
    """What this process runs on: versions, hardware, git commit of the code, command line."""
    packages = (
        "animalclf",
        "ray",
        "torch",
        "torchvision",
        "numpy",
        "pandas",
        "pyarrow",
        "opencv-python-headless",
        "pillow",
    )
    return Environment(
        command=caller().text,
        python=platform.python_version(),
        versions={name: _version(name) for name in packages},
        platform=platform.platform(),
        host=socket.gethostname(),
        cpus=os.cpu_count(),
        git_commit=_git_commit(),
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> str:
    """The commit of the code, with `+changes` where the working tree differs; empty outside a checkout."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        commit = subprocess.run(
            ["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", here, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+changes" if changed.strip() else "")
