"""The run folder (local or s3://) and its file names. A run folder alone is enough to resume, predict and report."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.errors import UserError
from animalclf.folder_lock import FolderLock
from animalclf.predictions import probability_columns
from animalclf.rows import EnsembleResult, Environment, EpochRow, TrainingResult
from animalclf.utils import storage
from animalclf.utils.caller import caller

# A file that marks a folder of another kind, and what to name instead of it.
OTHER_KINDS = {
    "comparison.yaml": "a comparison; name one of its runs, the folders in its trials/",
    "dataset.json": "a prepared set, not a run; train on it with `animalclf train --data` and name the run",
    "leaderboard.json": "a folder of ensembles; name one of the runs that they combine",
    "result.json": "an ensemble; name one of the runs that it combines",
}


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
        self._lock.check()

    def lock(self) -> None:
        """Lock the folder for this call, until `unlock` (see FolderLock.acquire)."""
        self._lock.acquire()

    def check_locked(self) -> None:
        """Raise UserError if another process took the folder from this one, whose lock was not renewed in time."""
        self._lock.check_held()

    def unlock(self) -> None:
        """Unlock the folder. A local one that is empty is removed: the command was refused."""
        self._lock.release()

    @property
    def _lock(self) -> FolderLock:
        return FolderLock(self.root, below=True)


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
