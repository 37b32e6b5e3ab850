"""Rows of files and events: their JSON keys, and defaults for missing ones."""

import numpy as np
import pytest

from animalclf.errors import UserError
from animalclf.metrics import from_probabilities
from animalclf.rows import EpochEnd, EpochRow, PhaseProgress, StartupEvent, TrainingResult

EPOCH = {
    "epoch": 1, "lr": 1e-4, "train_loss": 1.5, "train_accuracy": 0.25, "train_rows": 33, "train_seconds": 2.0, "images_per_s": 16.5,
    "workers": 1, "wait_fraction": 0.01, "read_seconds": 0.1, "augment_seconds": 0.2, "wait_seconds": 0.02, "copy_seconds": 0.01,
    "step_seconds": 1.97, "val_loss": 1.1, "val_rows": 11, "val_accuracy": 0.5, "val_balanced_accuracy": 0.4, "val_macro_f1": 0.3,
    "validate_seconds": 0.4, "seconds": 2.5, "checkpoint_seconds": 0.0, "features_seconds": 0.6,
}  # fmt: skip
RESULT = {
    "run": "/runs/a", "recipe": "big_cnn", "seed": 0, "epochs": 3, "best_epoch": 2, "classes": ["a", "b"], "workers": 1, "precision": "fp32",
    "rows": {"train": 33, "val": 11, "test": 0}, "seconds": 7.5, "seconds_this_time": 7.6, "images_per_s": 16.5, "time": {"read": 0.3},
    "wait_fraction": 0.01, "accuracy": 0.5, "balanced_accuracy": 0.4, "macro_f1": 0.3, "loss": 1.1,
}  # fmt: skip


def test_an_epoch_keeps_its_keys():
    row = EpochRow.from_dict(EPOCH)
    assert row.to_dict() == EPOCH
    assert row.val == {"loss": 1.1, "accuracy": 0.5, "balanced_accuracy": 0.4, "macro_f1": 0.3} and row.val_rows == 11
    assert (row.images_per_s, row.wait_fraction, row.copy_seconds, row.features_seconds) == (16.5, 0.01, 0.01, 0.6)


def test_without_validation_and_features_their_keys_are_left_out():
    row = EpochRow.from_dict({key: value for key, value in EPOCH.items() if not key.startswith(("val_", "features"))})
    assert row.val == {} and row.val_rows is None and row.features_seconds is None
    assert not [key for key in row.to_dict() if key.startswith(("val_", "features"))]


def test_a_registered_metric_is_a_key_of_the_row():
    row = EpochRow(epoch=1, val={"kappa": 0.7})
    assert row.to_dict()["val_kappa"] == 0.7 and EpochRow.from_dict(row.to_dict()) == row


def test_a_result_keeps_its_keys():
    evaluation = from_probabilities(np.eye(2, dtype=np.float32) * 0.8 + 0.1, np.array([0, 1]), ["a", "b"])
    content = {**RESULT, "val": evaluation.to_dict()}
    result = TrainingResult.from_dict(content)
    time = dict.fromkeys(("features", "read", "augment", "wait", "copy", "step", "validate", "checkpoint"), 0.0)
    assert (
        result.to_dict() == {**content, "time": {**time, "read": 0.3}}
        and result.val == evaluation
        and result.test is None
    )
    assert result.metrics == {"accuracy": 0.5, "balanced_accuracy": 0.4, "macro_f1": 0.3, "loss": 1.1}


def test_old_and_new_files_open():
    assert EpochRow.from_dict({"epoch": 2, "unknown": "text"}) == EpochRow(epoch=2)
    with pytest.raises(UserError, match="EpochRow: epoch missing"):
        EpochRow.from_dict({"lr": 0.1})


def test_events_keep_their_keys():
    progress = {"phase": "train", "epoch": 1, "epochs": 3, "done": 4, "total": 33, "seconds": 0.5}
    assert PhaseProgress.from_dict(progress).to_dict() == progress and PhaseProgress.from_dict(progress).total == 33
    features = {"phase": "features", "done": 4, "total": 33, "seconds": 0.5}
    assert PhaseProgress.from_dict(features).to_dict() == features
    assert StartupEvent("ray").to_dict() == {"phase": "ray"}
    assert EpochEnd(EpochRow.from_dict(EPOCH)).to_dict() == {"row": EPOCH}
    assert EpochEnd.from_dict({"row": EPOCH}).row == EpochRow.from_dict(EPOCH)


def test_a_newer_key_wins_over_an_older_one():
    assert EpochRow.from_dict({"epoch": 1, "pictures_per_s": 1.0, "images_per_s": 2.0}).images_per_s == 2.0
    old = {"phase": "val", "done": 4, "of": 33, "seconds": 0.5}
    assert PhaseProgress.from_dict(old) == PhaseProgress("val", 4, 33, 0.5)
