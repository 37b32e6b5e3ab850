"""Elastic workers: a training goes on smaller when a node is lost, and grows when one comes."""

from itertools import groupby

import pytest

from animalclf.runs import Run


@pytest.mark.ray
def test_a_training_shrinks_with_the_cluster_and_grows_with_it(elastic):
    process, folder = elastic
    assert process.wait(timeout=900) == 0, (folder / "log").read_text()[-4000:]
    run = Run(str(folder / "run"))
    history = run.metrics()
    assert [row.epoch for row in history] == list(range(1, len(history) + 1)) and run.result().epochs == len(history)
    assert [workers for workers, _ in groupby(row.workers for row in history)] == [2, 1, 2]
    # On any number of workers: every image once per epoch, the same steps at the same learning rate.
    assert {(row.train_rows, row.val_rows, row.lr) for row in history} == {(33, 12, history[0].lr)}
