"""Properties of trainings and metrics, checked by hypothesis with a twentieth of the examples of test_properties.py: a
training takes a tenth of a second."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_prepared, without_times
from hypothesis import given, settings
from hypothesis import strategies as st
from kills.scenarios import SETTINGS, register_tiny_model

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.data.prepared_set import Prepared
from animalclf.metrics import from_confusion, from_probabilities
from animalclf.models import MODELS
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.training import train as training
from animalclf.training.distributed import RankContext

SIZE = 36
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # no waiting for a disk


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """13 training and 5 validation images of 3 classes, and the model called tiny."""
    register_tiny_model()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny_prepared(tmp_path_factory.mktemp("prepared"), (8, 6, 4), size=SIZE)
    torch.set_num_threads(threads)
    MODELS.unregister("tiny")


def train(folder: str, config: Config, prepared: Prepared, stop_after: int = 0) -> Run:
    """Train in this process, interrupted once `stop_after` more epochs are finished (0: not)."""
    run, images, ended = Run(folder), load_images(prepared), 0

    def on_epoch(_: object) -> None:
        nonlocal ended
        ended += 1
        if ended == stop_after:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        training.train(config, prepared, run, lambda plan, _: MemoryLoader(plan, images), RankContext(), on_epoch)
    return run


@st.composite
def interrupted_trainings(draw: st.DrawFn) -> tuple[Config, list[int]]:
    """A configuration, and the numbers of epochs after which its training is interrupted."""
    epochs = draw(st.integers(2, 4))
    select = draw(st.sampled_from(["best", "last"]))
    config = configuration.load(
        "big_cnn",
        SETTINGS
        | {
            "data.stored_size": SIZE,
            "seed": draw(st.integers(0, 2**30)),
            "train.epochs": epochs,
            "train.batch_size": draw(st.sampled_from([3, 8, 13, 32])),
            "train.balance": draw(st.sampled_from(["none", "class_weights", "sampling"])),
            "train.select": select,
            "train.patience": draw(st.sampled_from([0, 1, 2])) if select == "best" else 0,
            "train.monitor": draw(st.sampled_from(["balanced_accuracy", "loss"])),
            "optim.name": draw(st.sampled_from(["adam", "adamw", "sgd"])),
            "optim.schedule": draw(st.sampled_from(["constant", "cosine"])),
            "optim.warmup_epochs": draw(st.sampled_from([0, 0.5, 2])),
            "optim.ema": draw(st.sampled_from([0, 0.9])),
            "optim.clip_norm": draw(st.sampled_from([0, 1])),
            "augment.mixup": draw(st.sampled_from([0, 0.2])),
            "augment.cutmix": draw(st.sampled_from([0, 1])),
            "augment.mix_off_epochs": draw(st.sampled_from([0, 1])),
        },
    )
    first = draw(st.integers(1, epochs - 1))
    return config, [first, *([1] if first < epochs - 1 and draw(st.booleans()) else [])]


@given(interrupted_trainings())
@settings(max_examples=max(1, settings.default.max_examples // 20))
def test_a_training_resumed_after_any_epoch_equals_an_uninterrupted_one(prepared, case) -> None:
    config, interruptions = case
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        whole, resumed = train(f"{folder}/whole", config, prepared), Run(f"{folder}/resumed")
        for stop_after in [*interruptions, 0]:
            train(resumed.root, config, prepared, stop_after)
        rows = [[without_times(row) for row in run.metrics()] for run in (whole, resumed)]
        assert rows[0] == rows[1] and len(rows[0]) >= min(2, config.train.epochs)
        results = [run.result() for run in (whole, resumed)]
        assert results[0].best_epoch == results[1].best_epoch and results[0].metrics == results[1].metrics
        for which in ("best", "last"):
            expected, weights = (checkpoint.load(run.checkpoint(which))["model"] for run in (whole, resumed))
            assert all(torch.equal(weights[name], expected[name]) for name in expected)
        assert whole.predictions("val").equals(resumed.predictions("val"))
        assert not list(Path(folder).rglob("*.tmp"))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60), st.integers(0, 2**32))
@settings(max_examples=max(1, settings.default.max_examples // 20))
def test_metrics_of_counts_are_their_definitions_and_do_not_depend_on_the_order(pairs, seed) -> None:
    labels, predicted = np.array(pairs).T
    confusion = np.zeros((5, 5), np.int64)
    for label, prediction in pairs:
        confusion[label, prediction] += 1
    metrics = from_confusion(confusion)
    recalls = [(predicted[labels == name] == name).mean() for name in np.unique(labels)]
    assert metrics["accuracy"] == pytest.approx((labels == predicted).mean())
    assert metrics["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    order = np.random.default_rng(seed).permutation(len(labels))
    probabilities = np.full((len(labels), 5), 0.1)
    probabilities[np.arange(len(labels)), predicted] = 0.6
    evaluation = from_probabilities(probabilities[order], labels[order], list("abcde"))
    assert np.array_equal(evaluation.confusion, confusion) and evaluation.rows == len(labels)
    assert {key: evaluation[key] for key in metrics} == pytest.approx(metrics)
    for key, (low, high) in evaluation.intervals.items():
        assert low <= evaluation[key] + 1e-9 and evaluation[key] <= high + 1e-9, key
