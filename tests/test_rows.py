"""Rows of files and events: their JSON keys, defaults for missing ones, errors that name the file."""

import json
import re

import numpy as np
import pytest

from animalclf.errors import UserError
from animalclf.folder_lock import LockHolder
from animalclf.metrics import from_probabilities
from animalclf.rows import EpochEnd, EpochRow, PhaseProgress, StartupEvent, TimeSpent, TrainingResult
from animalclf.runs import Run
from animalclf.training import checkpoint

EPOCH = {
    "epoch": 1, "lr": 1e-4, "train_loss": 1.5, "train_accuracy": 0.25, "train_rows": 33, "train_seconds": 2.0,
    "images_per_s": 16.5, "workers": 1, "wait_fraction": 0.01, "read_seconds": 0.1, "augment_seconds": 0.2,
    "wait_seconds": 0.02, "copy_seconds": 0.01, "step_seconds": 1.97, "val_loss": 1.1,
    "val_rows": 11, "val_accuracy": 0.5,
    "val_balanced_accuracy": 0.4, "val_macro_f1": 0.3,
    "validate_seconds": 0.4, "seconds": 2.5, "checkpoint_seconds": 0.0, "features_seconds": 0.6,
}  # fmt: skip
RESULT = {
    "run": "/runs/a", "recipe": "big_cnn", "seed": 0, "epochs": 3, "best_epoch": 2, "classes": ["a", "b"],
    "workers": 1, "precision": "fp32",
    "rows": {"train": 33, "val": 11, "test": 0}, "seconds": 7.5, "seconds_this_time": 7.6, "images_per_s": 16.5,
    "time": TimeSpent(read=0.3).to_dict(), "wait_fraction": 0.01, "accuracy": 0.5, "balanced_accuracy": 0.4,
    "macro_f1": 0.3, "loss": 1.1,
}  # fmt: skip


def test_keys_of_an_epoch():
    row = EpochRow.from_dict(EPOCH)
    assert row.to_dict() == EPOCH
    assert row.val == {"loss": 1.1, "accuracy": 0.5, "balanced_accuracy": 0.4, "macro_f1": 0.3} and row.val_rows == 11
    assert (row.images_per_s, row.wait_fraction, row.copy_seconds, row.features_seconds) == (16.5, 0.01, 0.01, 0.6)


def test_without_validation_and_features_their_keys_are_omitted():
    row = EpochRow.from_dict({key: value for key, value in EPOCH.items() if not key.startswith(("val_", "features"))})
    assert row.val == {} and row.val_rows is None and row.features_seconds is None
    assert not [key for key in row.to_dict() if key.startswith(("val_", "features"))]


def test_a_registered_metric_is_a_key_of_the_row():
    row = EpochRow(epoch=1, val={"kappa": 0.7})
    assert row.to_dict()["val_kappa"] == 0.7 and EpochRow.from_dict(row.to_dict()) == row


def test_keys_of_a_result():
    evaluation = from_probabilities(np.eye(2, dtype=np.float32) * 0.8 + 0.1, np.array([0, 1]), ["a", "b"])
    content = {**RESULT, "val": evaluation.to_dict()}
    result = TrainingResult.from_dict(content)
    assert result.to_dict() == content and result.val == evaluation and result.test is None
    assert result.metrics == {"accuracy": 0.5, "balanced_accuracy": 0.4, "macro_f1": 0.3, "loss": 1.1}


def test_keys_of_events():
    progress = {"phase": "train", "epoch": 1, "epochs": 3, "done": 4, "total": 33, "seconds": 0.5}
    assert PhaseProgress.from_dict(progress).to_dict() == progress
    features = {"phase": "features", "done": 4, "total": 33, "seconds": 0.5}
    assert PhaseProgress.from_dict(features).to_dict() == features
    assert StartupEvent("ray").to_dict() == {"phase": "ray"}
    assert EpochEnd(EpochRow.from_dict(EPOCH)).to_dict() == {"row": EPOCH}
    assert EpochEnd.from_dict({"row": EPOCH}).row == EpochRow.from_dict(EPOCH)


def test_old_keys_are_read_and_new_ones_win():
    assert PhaseProgress.from_dict({"phase": "val", "done": 4, "of": 33, "seconds": 0.5}).total == 33
    assert EpochRow.from_dict({"epoch": 1, "pictures_per_s": 1.0, "images_per_s": 2.0}).images_per_s == 2.0
    holder = LockHolder.from_dict({"host": "a", "pid": 1, "time": 2.0, "born": 1.0})
    assert holder == LockHolder("a", 1, renewed=2.0, process_started=1.0)


def test_unknown_keys_are_ignored_and_missing_ones_reported():
    assert EpochRow.from_dict({"epoch": 2, "unknown": "text"}) == EpochRow(epoch=2)
    with pytest.raises(UserError, match=r"^EpochRow: epoch missing$"):
        EpochRow.from_dict({"lr": 0.1})


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("result.json", "{", r"result\.json: not valid JSON"),
        ("result.json", "[1]", r"result\.json: an object with keys is expected, not \[1\]"),
        ("result.json", '{"run": "a", "val": {"rows": 1}}', r"result\.json: per_class, calibration, .* \(Evaluation\)"),
        ("metrics.jsonl", '{"epoch": 1}\n{"lr": 0.1}\n', r"metrics\.jsonl, line 2: epoch missing"),
        ("metrics.jsonl", '{"epoch": 1}\n{"ep', r"metrics\.jsonl, line 2: not valid JSON"),
        ("running.json", '{"host": null, "pid": null, "time": null}', r"running\.json: not a lock file .*remove"),
        ("running.json", '{"host": "a"}', r"running\.json: not a lock file .*remove"),
    ],
)
def test_a_damaged_file_of_a_run_folder_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    run = Run(str(tmp_path))
    read = {"result.json": run.result, "metrics.jsonl": run.metrics, "running.json": run.lock}[name]
    with pytest.raises(UserError, match=message):
        read()


@pytest.mark.parametrize("name", ["result.json", "environment.json", "metrics.jsonl", "predictions/val.parquet"])
def test_a_file_of_a_run_folder_that_cannot_be_read_is_named(tmp_path, name):
    (tmp_path / name).mkdir(parents=True)
    run = Run(str(tmp_path))
    read = {
        "result.json": run.result,
        "environment.json": run.environment,
        "metrics.jsonl": run.metrics,
        "predictions/val.parquet": lambda: run.predictions("val"),
    }[name]
    with pytest.raises(UserError, match=rf"{re.escape(name)}: cannot be read \(Is a directory\)"):
        read()


def test_a_folder_as_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match=rf"{re.escape(tmp_path.name)}: cannot be read \(Is a directory\)"):
        checkpoint.load(str(tmp_path))


def test_rows_as_html_are_escaped():
    result = TrainingResult("<b>", classes=["<i>"], metrics={"loss<": 0.5})
    html = result._repr_html_()
    assert "<td>&lt;b&gt;</td>" in html and "<td>loss&lt;</td><td>0.5000</td>" in html
    assert "<b>" not in html


def test_rows_are_short_as_text_and_metrics_have_titles_in_notebooks():
    result = TrainingResult("runs/a", classes=["cat"] * 99, metrics={"ece": 0.123456})
    assert repr(result).startswith("TrainingResult(run='runs/a'") and repr(result).endswith("ece=0.1235)")
    assert len(repr(result)) < 300 and "<td>calibration error</td>" in result._repr_html_()


@pytest.mark.parametrize("workers", ["1", "2:8", 1])
def test_the_environment_of_trainings_and_trials_is_read(tmp_path, workers):
    (tmp_path / "environment.json").write_text(json.dumps({"command": "", "started": "", "workers": workers}))
    assert Run(str(tmp_path)).environment().workers == workers
