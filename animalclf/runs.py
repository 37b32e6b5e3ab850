"""The run folder (local or s3://) and its file names. A run folder alone is enough to resume, predict and report."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import psutil

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.errors import UserError
from animalclf.predictions import probability_columns
from animalclf.rows import EnsembleResult, Environment, EpochRow, Row, TrainingResult
from animalclf.utils import storage
from animalclf.utils.caller import caller
from animalclf.utils.leftovers import remove_leftovers
from animalclf.utils.writable import missing_folders

SAME_PROCESS_SECONDS = 5.0  # tolerance of a process's start time: the machine's clock may be corrected in between
# A file that marks a folder of another kind, and what to name instead of it.
OTHER_KINDS = {
    "comparison.yaml": "a comparison; name one of its runs, the folders in its trials/",
    "dataset.json": "a prepared set, not a run; train on it with `animalclf train --data` and name the run",
    "leaderboard.json": "a folder of ensembles; name one of the runs that they combine",
    "result.json": "an ensemble; name one of the runs that it combines",
}
STALE_SECONDS = 120  # without renewal, after which another machine's lock counts as left over from a crash


@dataclass(frozen=True)
class LockHolder(Row):
    """The process that holds a run folder: the content of running.json."""

    host: str
    pid: int
    renewed: float = field(metadata={"old_keys": ["time"]})
    """Seconds since 1970."""
    process_started: float = field(default=0.0, metadata={"old_keys": ["born"]})
    """Seconds since 1970."""
    made_folders: list[str] = field(default_factory=list)
    """Local folders that the lock made, from the inside."""

    @property
    def is_this_process(self) -> bool:
        return (self.host, self.pid) == (socket.gethostname(), os.getpid())

    @property
    def is_alive(self) -> bool:
        """Whether the process runs; on another machine, whether it renewed the lock recently."""
        if self.host == socket.gethostname():
            return _is_alive(self.pid, self.process_started)
        return time.time() - self.renewed < STALE_SECONDS


@dataclass(frozen=True)
class Run:
    """A run folder by its URL. Reading raises UserError that names the missing file."""

    root: str

    def url(self, *parts: str) -> str:
        return storage.join(self.root, *parts)

    def checkpoint(self, which: str) -> str:
        """The URL of a checkpoint: `best` (the model to use), or `last` (the state to resume, without frozen layers,
        which are in `best`)."""
        return self.url("checkpoints", f"{which}.pt")

    def has_checkpoint(self, which: str) -> bool:
        return storage.exists(self.checkpoint(which))

    @property
    def known_scores(self) -> str:
        """The URL of the fitted score of "none of these", of a finished run with validation images."""
        return self.url("known.npz")

    def exists(self) -> bool:
        return storage.exists(self.url("config.yaml"))

    def finished(self) -> bool:
        return storage.exists(self.url("result.json"))

    def config(self) -> Config:
        return configuration.load_whole(self._existing("config.yaml"))

    def environment(self) -> Environment:
        url = self._existing("environment.json")
        return Environment.from_dict(storage.read_json(url), url)

    def metrics(self) -> list[EpochRow]:
        """The history, one row per epoch; empty before the first epoch ended."""
        url = self.url("metrics.jsonl")
        try:
            content = storage.read_own(url)
        except FileNotFoundError:
            return []
        lines = [(line, f"{url}, line {number}") for number, line in enumerate(content.splitlines(), start=1)]
        return [EpochRow.from_dict(storage.parse_json(line, source), source) for line, source in lines]

    def result(self) -> TrainingResult:
        """The result of a finished training."""
        return TrainingResult.from_dict(self.read_result(), self.url("result.json"))

    def ensemble_result(self) -> EnsembleResult:
        return EnsembleResult.from_dict(self.read_result(), self.url("result.json"))

    def read_result(self) -> Mapping[str, object]:
        """The keys and values of result.json, of a training or an ensemble."""
        return storage.read_json(self._existing("result.json"))

    def predictions(self, name: str, classes: Sequence[str] = ()) -> pd.DataFrame:
        """Class probabilities of each labelled image, as written by training (val, test) or evaluate. Raises
        UserError also for a table without those of `classes`."""
        columns = ["path", "label", *probability_columns(classes)]
        return storage.read_table(self._existing("predictions", f"{name}.parquet"), columns)

    def _existing(self, *parts: str) -> str:
        url = self.url(*parts)
        if not storage.exists(url):
            hint = (
                "the training did not finish; continue it with --resume"
                if parts == ("result.json",) and self.exists()
                else "is it a run folder?"
            )
            raise UserError(f"{url}: does not exist ({hint})")
        return url

    def write_config(self, config: Config) -> None:
        storage.write_bytes(self.url("config.yaml"), configuration.to_yaml(config).encode())

    def write_environment(self, **fields: Any) -> None:
        """Write versions, hardware, git commit and command. `fields`: other fields of Environment."""
        storage.write_json(self.url("environment.json"), replace(environment(), **fields).to_dict())

    def write_metrics(self, history: Sequence[EpochRow]) -> None:
        lines = "".join(json.dumps(row.to_dict(), allow_nan=False) + "\n" for row in history)
        storage.write_bytes(self.url("metrics.jsonl"), lines.encode())

    def write_result(self, result: Mapping[str, object]) -> None:
        storage.write_json(self.url("result.json"), result)

    def write_predictions(self, name: str, table: pd.DataFrame) -> None:
        storage.write_table(self.url("predictions", f"{name}.parquet"), table)

    def check_unlocked(self) -> None:
        """Raise UserError if another running process holds the folder."""
        holder = self._holder()
        if holder and not holder.is_this_process and holder.is_alive:
            raise UserError(
                f"{self.root}: in use by process {holder.pid} on {holder.host}; "
                "wait for it, stop it, or choose another --out"
            )

    def lock(self) -> None:
        """Lock the folder for this process, and remove what a killed one left half-written; call again at intervals to
        renew the lock. Raises UserError if another running process holds it."""
        self.check_unlocked()
        holder = self._holder()
        if holder and holder.is_this_process:
            made = holder.made_folders
        else:
            remove_leftovers(self.root)
            made = missing_folders(self.root)
        own = LockHolder(socket.gethostname(), os.getpid(), time.time(), psutil.Process().create_time(), made)
        storage.write_json(self.url("running.json"), own.to_dict())

    def unlock(self) -> None:
        """Unlock the folder. A local one that is empty is removed, with the folders that were made for it: the command
        was refused."""
        holder = self._holder()
        if holder and holder.is_this_process:
            storage.remove(self.url("running.json"))
            if not storage.is_remote(self.root):
                with contextlib.suppress(OSError):
                    for path in dict.fromkeys([storage.filesystem(self.root)[1], *holder.made_folders]):
                        os.rmdir(path)

    def _holder(self) -> LockHolder | None:
        url = self.url("running.json")
        try:
            content = storage.read_json(url)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return LockHolder.from_dict(content, url)
        except UserError as error:
            raise UserError(
                f"{url}: not a lock file of animalclf; if no training uses this folder, remove the file"
            ) from error


def open_run(root: str) -> Run:
    """An existing run folder. Raises UserError if there is none, with what the folder is instead."""
    run = Run(storage.absolute(root))
    if not run.exists():
        check_kind(run)
        raise UserError(f"{root}: no run in this folder (config.yaml is missing); `animalclf train` creates one")
    return run


def open_finished(root: str) -> Run:
    """The run folder of a finished training, whose model is calibrated. Raises UserError."""
    run = open_run(root)
    if not run.finished():
        raise UserError(
            f"{run.root}: the training has not finished, so its model is not calibrated; continue it with --resume"
        )
    return run


def check_kind(folder: Run) -> None:
    """Raise UserError for a folder of another kind: a comparison, a prepared set, an ensemble."""
    if folder.exists() or folder.has_checkpoint("best"):
        return
    for file, kind in OTHER_KINDS.items():
        if storage.exists(folder.url(file)):
            raise UserError(f"{folder.root}: is {kind}")


def _is_alive(pid: int, started: float) -> bool:
    """Whether the process `pid` runs and started at `started`: its number may belong to another process by now."""
    try:
        return abs(psutil.Process(pid).create_time() - started) < SAME_PROCESS_SECONDS
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def environment() -> Environment:
    """The environment of this process: versions, hardware, git commit of the code, command line."""
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
    """The commit of the code, with `+changes` if the working tree differs; empty outside a checkout."""
    folder = os.path.dirname(os.path.abspath(__file__))

    def git(*arguments: str) -> str:
        command = ["git", "-C", folder, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "-uno")
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+changes" if changes else "")
