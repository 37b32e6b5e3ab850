"""Runs in other tools: TensorBoard's event files, MLflow."""

import contextlib
import signal
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import tiny_config

from animalclf.errors import UserError
from animalclf.rows import EpochRow
from animalclf.runs import Run
from animalclf.training.mlflow_log import log_run
from animalclf.training.tensorboard import write_events

ROWS = [
    EpochRow(
        epoch,
        lr=0.1,
        train_loss=1 / epoch,
        train_accuracy=0.5,
        val={"loss": 2.0, "balanced_accuracy": 0.25 * epoch},
        seconds=3.0,
    )
    for epoch in (1, 2)
]


def scalars(file: Path) -> dict[tuple[str, int], float]:
    """The scalars of a TensorBoard file: records of length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    content, values, at = file.read_bytes(), {}, 0
    while at < len(content):
        (length,) = struct.unpack("<Q", content[at : at + 8])
        event = Event.FromString(content[at + 12 : at + 12 + length])
        values |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        at += 16 + length
    return values


def test_an_interrupt_during_the_import_of_tensorboard_is_not_lost(tmp_path, monkeypatch):
    """Code that an import runs may drop it."""

    class Finder:
        def find_spec(self, name, path, target=None):
            if name == "tensorboardX.summary":
                with contextlib.suppress(BaseException):
                    signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "tensorboardX.summary", raising=False)
    with pytest.raises(KeyboardInterrupt):
        write_events(Run(str(tmp_path)), ROWS[0])


def test_every_epoch_has_its_event_file_under_standard_names(tmp_path):
    run = Run(str(tmp_path))
    write_events(run, ROWS[0])
    write_events(run, ROWS[1])
    write_events(run, ROWS[1])  # the epoch again, after a fault
    files = sorted((tmp_path / "events").iterdir())
    assert len(files) == 2 and all("tfevents" in file.name for file in files)
    first, second = map(scalars, files)
    assert (
        second[("train/loss", 2)] == pytest.approx(0.5)
        and second[("val/balanced_accuracy", 2)] == 0.5
        and ("val/loss", 1) in first
    )
    assert not any(step == 1 for _, step in second)


def test_mlflow_gets_a_finished_run_only_where_the_environment_names_a_server(tmp_path, monkeypatch):
    run = Run(str(tmp_path))
    run.write_config(tiny_config())
    run.write_environment(data_fingerprint="f")
    run.write_metrics(ROWS)
    run.write_result({"run": run.root, "accuracy": 0.5})
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert not log_run(run)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///nowhere")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match=r"animalclf\[mlflow\]"):
        log_run(run)
    logged = []
    fake = SimpleNamespace(
        start_run=lambda run_name: contextlib.nullcontext(),
        set_tags=logged.append,
        log_params=logged.append,
        log_metrics=lambda values, step=None: logged.append((step, values)),
    )
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    assert log_run(run)
    assert logged[1]["train.batch_size"] == 16 and logged[2][0] == 1 and logged[3][1]["val/balanced_accuracy"] == 0.5
    assert logged[4][1] == {"result/accuracy": 0.5}
