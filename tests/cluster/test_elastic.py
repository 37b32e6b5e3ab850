"""Elastic workers: a training goes on smaller when a node is lost, and grows when one comes."""

import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
from elastic_script import EPOCHS
from helpers import tiny_prepared

from animalclf.runs import Run

HERE = Path(__file__).parent


@pytest.mark.ray
def test_a_training_shrinks_with_the_cluster_and_grows_with_it(tmp_path):
    prepared = tiny_prepared(tmp_path / "prepared", (21, 16, 8), size=76)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)])}
    command = [sys.executable, str(HERE / "elastic_script.py"), prepared.root, str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    run = Run(str(tmp_path / "run"))
    history = run.metrics()
    assert [row["epoch"] for row in history] == list(range(1, EPOCHS + 1)) and run.result()["epochs"] == EPOCHS
    assert [workers for workers, _ in groupby(row["workers"] for row in history)] == [2, 1, 2]
    # On any number of workers: every picture once an epoch, the same steps at the same learning rate.
    assert {(row["train_rows"], row["val_rows"], row["lr"]) for row in history} == {(33, 12, history[0]["lr"])}
