"""The training loop on CPU without Ray: learning, exactness, resume, wrong configurations."""

import contextlib
import gzip
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from helpers import lite_config, tiny_config, tiny_prepared, without_times

import animalclf
from animalclf import config as configuration
from animalclf.config import Augment
from animalclf.data.augment import torch_form
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.data.sampler import SamplingPlan, sampling_plan
from animalclf.errors import UserError
from animalclf.models.classifier import Classifier
from animalclf.rows import EpochRow
from animalclf.runs import Run
from animalclf.training import checkpoint, checks, launch, loop, train_state
from animalclf.training import train as training
from animalclf.training.context import TrainContext
from animalclf.training.distributed import RankContext
from animalclf.training.frozen_features import one_thread_for_small
from animalclf.training.loop import TrainPass
from animalclf.training.mixup import MixedBatch, mix_batch
from animalclf.training.optim import WeightAverage, learning_rate, make_optimizer
from animalclf.training.resources import Workers
from animalclf.utils import storage

COUNTS = (20, 16, 8)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return tiny_prepared(tmp_path_factory.mktemp("prepared"), COUNTS, size=76)


def quick(epochs, **sets):
    """A network with BatchNorm and dropout that trains in a second."""
    return lite_config(epochs, model__dropout=0.2, **sets)


def train_into(folder, config, prepared, stop_after=None):
    """Train in this process; interrupted after `stop_after` epochs, if given."""
    run, rows, images = Run(str(folder)), [], load_images(prepared)

    def on_epoch(row):
        rows.append(row)
        if len(rows) == stop_after:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        training.train(config, prepared, run, lambda plan, passes: MemoryLoader(plan, images), RankContext(), on_epoch)
    return run


def test_the_time_between_epochs_is_recorded(tmp_path, prepared):
    """Checkpoints and reports take time outside the steps; it is reported, and part of the epochs' seconds."""
    images, run = load_images(prepared), Run(str(tmp_path / "run"))

    def make_loader(plan, passes):
        return MemoryLoader(plan, images)

    training.train(quick(3), prepared, run, make_loader, RankContext(), lambda row: time.sleep(0.2))
    first, *later = run.metrics()
    assert first.checkpoint_seconds == 0 and all(0.2 <= row.checkpoint_seconds < row.seconds for row in later)
    assert run.result().time.checkpoint >= 0.4 and run.result().seconds <= run.result().seconds_this_time


def metrics(run):
    """The history without times and speeds."""
    return [without_times(row) for row in run.metrics()]


def test_it_learns_and_fills_the_run_folder(tmp_path, prepared):
    run = train_into(tmp_path, quick(4, optim__lr="1e-3"), prepared)
    result, history = run.result(), run.metrics()
    assert len(history) == 4 and history[-1].train_loss < history[0].train_loss
    assert result.rows == {"train": 33, "val": 11, "test": 0}
    assert all(row.train_rows == 33 and row.val_rows == 11 for row in history)
    table = run.predictions("val")
    assert list(table["path"]) == sorted(table["path"]) and len(table) == 11
    probabilities = table[[f"p_{name}" for name in prepared.classes]].to_numpy()
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert result.metrics["accuracy"] == pytest.approx((table["predicted"] == table["label"]).mean())
    best = max(history, key=lambda row: row.val["balanced_accuracy"])
    assert result.best_epoch == best.epoch
    assert result.metrics["balanced_accuracy"] == pytest.approx(best.val["balanced_accuracy"])


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, prepared):
    config = quick(3, optim__ema=0.9, optim__schedule="cosine", optim__warmup_epochs=1)
    uninterrupted = train_into(tmp_path / "uninterrupted", config, prepared)
    train_into(tmp_path / "resumed", config, prepared, stop_after=1)
    assert len(Run(str(tmp_path / "resumed")).metrics()) == 1
    resumed = train_into(tmp_path / "resumed", config, prepared)
    assert metrics(resumed) == metrics(uninterrupted)
    for which in ("last", "best"):
        expected, weights = (checkpoint.load(run.checkpoint(which))["model"] for run in (uninterrupted, resumed))
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert resumed.predictions("val").equals(uninterrupted.predictions("val"))


def test_frozen_layers_are_saved_once_and_resumed_from_there(tmp_path):
    prepared = tiny_prepared(tmp_path / "prepared", COUNTS)
    config = pooled(3, optim__ema=0.9)
    uninterrupted = train_into(tmp_path / "uninterrupted", config, prepared)
    run = train_into(tmp_path / "resumed", config, prepared, stop_after=1)
    best, last = (checkpoint.load(run.checkpoint(which)) for which in ("best", "last"))
    base = {name for name in best["model"] if name.startswith("base.")}
    assert last["model"] and set(best["model"]) - set(last["model"]) == base
    assert set(last["average"]["state"]) == set(last["model"])
    train_into(run.root, config, prepared)
    assert metrics(run) == metrics(uninterrupted)
    assert run.predictions("val").equals(uninterrupted.predictions("val"))
    best["model"] |= {name: best["model"][name] + 1 for name in base}  # as no random seed draws them
    rewrite_best(run, best)
    resumed = train_state.create_or_resume(config, run, 3, RankContext())
    assert all(torch.equal(resumed.model.state_dict()[name], best["model"][name]) for name in base)
    assert all(torch.equal(resumed.average.state[name], best["model"][name]) for name in base)
    storage.remove(run.checkpoint("best"))
    with pytest.raises(UserError, match=r"best\.pt: no checkpoint here"):
        train_into(run.root, pooled(4, optim__ema=0.9), prepared)


def rewrite_best(run, content):
    content = {key: value for key, value in content.items() if key != "format"}
    storage.write_bytes(run.checkpoint("best"), checkpoint.serialize(content))


def test_a_crash_between_the_last_checkpoint_and_its_history_loses_nothing(tmp_path, prepared):
    run = train_into(tmp_path / "run", quick(2), prepared)
    history = run.metrics()
    run.write_metrics(history[:1])
    storage.remove(run.url("result.json"))
    train_into(tmp_path / "run", quick(2), prepared)
    assert run.metrics() == history and run.result().epochs == 2


def test_a_finished_run_extended_to_more_epochs_equals_one_of_that_length(tmp_path, prepared):
    uninterrupted = train_into(tmp_path / "uninterrupted", quick(3), prepared)
    launch.record_run(quick(1), prepared, Run(str(tmp_path / "longer")))
    run = train_into(tmp_path / "longer", quick(1), prepared)
    assert run.result().epochs == 1
    config = quick(3)
    launch.record_run(config, prepared, checks.lock_run(run.root, config, resume=True))
    run.unlock()
    assert run.config() == config and not run.finished()  # interrupted here, the training is unfinished
    train_into(tmp_path / "longer", config, prepared)
    assert run.result().epochs == 3 and metrics(run) == metrics(uninterrupted)
    assert run.predictions("val").equals(uninterrupted.predictions("val"))
    with pytest.raises(UserError, match=r"train\.epochs: 3 -> 2: 3 epochs are finished"):
        checks.lock_run(run.root, quick(2), resume=True)
    with pytest.raises(UserError, match=r"differs .*optim\.lr: 0\.0001 -> 0\.5; train\.epochs: 3 -> 4"):
        checks.lock_run(run.root, quick(4, optim__lr=0.5), resume=True)


def test_a_run_that_ended_by_patience_is_extended_only_with_more_patience(tmp_path, prepared):
    def settings(epochs, patience):
        # No BatchNorm, whose statistics change without learning: all epochs score alike.
        return pooled(epochs, train__patience=patience, optim__lr=1e-300, optim__schedule="constant")

    uninterrupted = train_into(tmp_path / "uninterrupted", settings(4, 0), prepared)
    launch.record_run(settings(9, 1), prepared, Run(str(tmp_path / "ended")))
    run = train_into(tmp_path / "ended", settings(9, 1), prepared)
    assert run.result().epochs == 2
    message = r"train\.epochs: 9 -> 12: with train\.patience=1 training ends with epoch 2; .*larger"
    with pytest.raises(UserError, match=message):
        checks.lock_run(run.root, settings(12, 1), resume=True)
    config = settings(4, 0)
    launch.record_run(config, prepared, checks.lock_run(run.root, config, resume=True))
    assert not run.finished()
    train_into(tmp_path / "ended", config, prepared)
    assert run.result().epochs == 4 and metrics(run) == metrics(uninterrupted)
    # With patience 2 the fourth epoch would not have been trained; with 3 the training would end where it has ended.
    for patience, end in ((2, 3), (3, 4)):
        with pytest.raises(UserError, match=rf"ends with epoch {end}"):
            checks.can_extend(run, settings(5, patience))
    storage.remove(run.url("result.json"))  # unfinished, the training may end here
    assert checks.can_extend(run, settings(5, 3))


def test_metrics_depend_on_the_seed_alone(tmp_path, prepared):
    runs = [train_into(tmp_path / str(i), quick(1, seed=seed), prepared) for i, seed in enumerate([0, 0, 1])]
    first, repeated, different = (metrics(run) for run in runs)
    assert first == repeated != different


def test_accumulation_gives_the_gradient_of_the_whole_batch():
    torch.manual_seed(0)
    image, label = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8), np.arange(12) % 3
    weights = torch.tensor([0.5, 1.0, 3.0])
    grads = []
    for pieces in (1, 3, 5):
        torch.manual_seed(0)
        net = torch.nn.Sequential(Scale(), torch.nn.Flatten(), torch.nn.Linear(48, 3))
        config = tiny_config(1, train__accumulate=pieces, optim__name="sgd", optim__momentum=0, optim__lr=1.0)
        before = net[2].weight.detach().clone()
        batch = {"image": image, "label": label, "index": np.arange(12)}
        optimizer = make_optimizer(net.parameters(), config.optim)
        loop.train_epoch(net, [batch], optimizer, TrainPass(config, 0, np.array([12]), class_weights=weights))
        grads.append(before - net[2].weight.detach())
    assert torch.allclose(grads[0], grads[1], atol=1e-6) and torch.allclose(grads[0], grads[2], atol=1e-6)


class Scale(torch.nn.Module):
    def forward(self, x):
        return x.float() / 255


def pooled(epochs, **sets):
    base = {
        "model.weights": "none",
        "model.input_size": 32,
        "data.stored_size": 40,
        "train.epochs": epochs,
        "train.precision": "fp32",
    }
    base |= {"train.batch_size": 8} | {key.replace("__", "."): value for key, value in sets.items()}
    return configuration.load("vgg16_pooled", base)


def test_training_a_head_on_cached_features_equals_training_it_on_images(tmp_path, monkeypatch):
    prepared = tiny_prepared(tmp_path / "prepared", COUNTS)
    batch_sizes = []
    features = Classifier.features

    def counted_features(self, images):
        batch_sizes.append(len(images))
        return features(self, images)

    monkeypatch.setattr(Classifier, "features", counted_features)
    cached = train_into(tmp_path / "cached", pooled(3), prepared)
    assert sum(batch_sizes) == sum(cached.result().rows.values())  # each image once, with the final evaluation
    first, *later = cached.metrics()
    assert 0 < first.features_seconds < first.seconds and not any(row.features_seconds for row in later)
    monkeypatch.setattr(training, "is_identity", lambda augment: False)
    computed = train_into(tmp_path / "computed", pooled(3), prepared)
    for cached_row, computed_row in zip(metrics(cached), metrics(computed), strict=True):
        assert cached_row == pytest.approx(computed_row, rel=1e-4)
    assert cached.result().metrics["loss"] == pytest.approx(computed.result().metrics["loss"], rel=1e-4)


def test_class_weights_are_those_of_the_reference_notebook():
    counts = {
        "cane": 4363,
        "cavallo": 2123,
        "elefante": 946,
        "farfalla": 1612,
        "gallina": 2598,
        "gatto": 1168,
        "mucca": 1366,
        "pecora": 1320,
    }
    counts |= {"ragno": 4321, "scoiattolo": 1362}
    labels = np.repeat(np.arange(10), list(counts.values()))
    config = configuration.load("big_cnn_balanced")
    plan = SamplingPlan({"train": np.arange(len(labels))}, labels, 128, "class_weights", config.augment, 128, 0)
    prepared = SimpleNamespace(classes=list(counts))
    weights = training.class_weights(TrainContext(config, prepared, plan, Run(""), RankContext(), None, None))
    assert weights[0].item() == pytest.approx(0.485, abs=5e-4)
    assert weights[2].item() == pytest.approx(2.24, abs=5e-3)


def test_learning_rate_warms_up_and_decays():
    spec = configuration.load(
        "big_cnn", {"optim.lr": 1, "optim.schedule": "cosine", "optim.warmup_epochs": 2, "train.epochs": 10}
    ).optim
    rates = [learning_rate(spec, step, 5, 10) for step in range(50)]
    assert rates[0] == pytest.approx(1 / 11) and max(rates) == rates[10] == 1 and rates[-1] < 0.01
    assert all(a < b for a, b in itertools.pairwise(rates[:11])) and all(
        a > b for a, b in itertools.pairwise(rates[10:])
    )


def test_averaged_weights_lag_behind_and_restore():
    net = torch.nn.Linear(2, 2)
    average = WeightAverage(net, 0.5)
    before = net.weight.detach().clone()
    with torch.no_grad():
        net.weight += 1
    average.update(net)
    average.apply(net)
    assert (net.weight > before).all() and (net.weight < before + 1).all()
    average.restore(net)
    assert torch.allclose(net.weight, before + 1)


@pytest.mark.parametrize(
    ("reason", "settings"),
    [
        ("the training loss is NaN or infinite", {"train__batch_size": 16}),
        (
            r"weights are NaN or beyond 1e\+18",
            {"train__batch_size": 64},
        ),  # one step: its loss is that of the initial weights
        (r"weights are NaN or beyond 1e\+18", {"train__batch_size": 64, "train__accumulate": 4}),
        (r"weights are NaN or beyond 1e\+18", {"train__batch_size": 64, "optim__ema": 0.9}),
        (r"weights are NaN or beyond 1e\+18", {"train__batch_size": 64, "train__precision": "bf16"}),
        (r"weights are NaN or beyond 1e\+18", {"train__batch_size": 64, "data__val": 0.0}),
    ],
)
def test_a_diverged_training_ends_with_advice_and_saves_nothing(tmp_path, prepared, reason, settings):
    settings = {"optim__name": "sgd", "optim__lr": "1e38", "optim__clip_norm": 0, "optim__warmup_epochs": 0, **settings}
    with pytest.raises(UserError, match=rf"^diverged in epoch 1 \({reason}\); lower optim\.lr \(now 1e\+38"):
        train_into(tmp_path, quick(2, **settings), prepared)
    assert not os.path.exists(tmp_path / "checkpoints") and not os.path.exists(tmp_path / "metrics.jsonl")


def test_a_training_that_diverges_later_leaves_the_epochs_before(tmp_path, prepared):
    run = train_into(tmp_path, quick(1), prepared)
    saved = (tmp_path / "checkpoints" / "last.pt").read_bytes()
    with pytest.raises(UserError, match="diverged in epoch 2"):
        train_into(tmp_path, quick(2, optim__lr="1e38", optim__clip_norm=0), prepared)
    assert (tmp_path / "checkpoints" / "last.pt").read_bytes() == saved and len(run.metrics()) == 1


def test_infinite_validation_loss_is_a_divergence(tmp_path, prepared, monkeypatch):
    monkeypatch.setattr(loop, "log_loss_sum", lambda logits, label: logits.sum() * torch.inf)
    with pytest.raises(UserError, match=r"diverged in epoch 1 \(the validation loss is NaN or infinite\)"):
        train_into(tmp_path, quick(1), prepared)


def test_early_stopping(tmp_path, prepared):
    run = train_into(tmp_path, quick(9, train__patience=1, optim__lr="1e-12"), prepared)
    assert len(run.metrics()) == 2 and run.result().best_epoch == 1


def test_checkpoint_of_another_architecture_is_refused(tmp_path, prepared):
    run = train_into(tmp_path, quick(1), prepared)
    content = checkpoint.load(run.checkpoint("best"))
    content["classes"] = ["a", "b"]
    rewrite_best(run, content)
    with pytest.raises(UserError, match="does not fit this architecture"):
        checkpoint.load_model(run.root)
    (tmp_path / "checkpoints" / "best.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        checkpoint.load_model(run.root)


def test_locking_a_run_folder(tmp_path):
    config = tiny_config(2)
    with pytest.raises(UserError, match="no run to resume"):
        checks.lock_run(str(tmp_path), config, resume=True)
    run = checks.lock_run(str(tmp_path), config, resume=False)
    with pytest.raises(UserError, match="in use by another call in this process"):
        checks.lock_run(str(tmp_path), config, resume=False)
    run.unlock()
    run.write_config(config)
    with pytest.raises(UserError, match="--resume"):
        checks.lock_run(str(tmp_path), config, resume=False)
    with pytest.raises(UserError, match=r"train\.batch_size: \d+ -> 7"):
        checks.lock_run(str(tmp_path), tiny_config(2, train__batch_size=7), resume=True)
    run.write_config(tiny_config(2, optim__schedule="cosine"))
    with pytest.raises(UserError, match=r"train\.epochs: 2 -> 5: with optim\.schedule=cosine"):
        checks.lock_run(str(tmp_path), tiny_config(5, optim__schedule="cosine"), resume=True)
    run.write_config(config)
    checks.lock_run(str(tmp_path), config, resume=True)
    lock = json.loads((tmp_path / "running.json").read_text()) | {"start_in_boot": ""}
    run.unlock()
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        lock |= {"pid": sleeper.pid, "process_started": psutil.Process(sleeper.pid).create_time()}
        (tmp_path / "running.json").write_text(json.dumps(lock))
        with pytest.raises(UserError, match=f"in use by process {sleeper.pid}"):
            checks.lock_run(str(tmp_path), config, resume=True)
        # A process with this id that started later is another one, for example after a reboot.
        (tmp_path / "running.json").write_text(json.dumps(lock | {"process_started": lock["process_started"] - 3600}))
        checks.lock_run(str(tmp_path), config, resume=True).unlock()
        (tmp_path / "running.json").write_text(json.dumps(lock))
    finally:
        sleeper.kill()
        sleeper.wait()
    checks.lock_run(str(tmp_path), config, resume=True)  # the holder is dead, so its lock is stale


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_output(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        checks.lock_run(str(tmp_path / "run"), tiny_config(1), resume=False)


@pytest.mark.parametrize(
    ("heads", "folds", "finished", "text"),
    [
        ((), 0, 0, "2 epochs"),
        ((), 0, 1, "epochs 2 to 2"),
        ((), 0, 2, "2 epochs, all finished,"),
        (("logistic",), 0, 0, "heads fitted, not trained in epochs,"),
        (("logistic",), 4, 0, "heads fitted for each fold and for all images, not trained in epochs,"),
        (("logistic",), 0, 1, "heads fitted, not trained in epochs, all finished,"),
    ],
)
def test_the_plan_line_has_the_length_of_the_training(heads, folds, finished, text):
    config = tiny_config(1 if heads else 2, train__heads=heads, train__folds=folds)
    assert launch._length(config, finished) == text


def test_output_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        checks.lock_run(str(tmp_path / "file" / "run"), tiny_config(1), resume=False)


def test_a_limit_has_images_of_every_class(prepared):
    config = tiny_config(1, data__limit=12)
    plan = sampling_plan(prepared, config)
    assert 10 <= sum(map(len, plan.rows.values())) <= 15
    assert set(plan.labels[plan.rows["train"]]) == {0, 1, 2}


def test_augmentation_on_the_device_trains_the_same(tmp_path, prepared, monkeypatch):
    augmented, augment_batch = [], torch_form.augment_batch

    def counted(*arguments, **settings):
        augmented.append(on)
        return augment_batch(*arguments, **settings)

    monkeypatch.setattr(torch_form, "augment_batch", counted)
    rows = []
    for on in ("data", "device"):
        config = quick(1, augment__on=on, optim__name="sgd")
        rows.append(train_into(tmp_path / on, config, prepared).metrics()[0])
    assert set(augmented) == {"device"}
    assert rows[0].train_loss == pytest.approx(rows[1].train_loss, rel=1e-3)
    assert rows[0].augment_seconds > 0
    assert all(
        row.wait_seconds + row.copy_seconds + row.step_seconds == pytest.approx(row.train_seconds) for row in rows
    )


@pytest.mark.parametrize("spec", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}])
def test_mixing_combines_images_and_labels_in_the_same_fraction(spec):
    image = torch.arange(6).view(6, 1, 1, 1).expand(6, 20, 20, 3).to(torch.uint8) * 10
    label = torch.arange(6)
    dtypes = set()
    for step in range(20):
        mixed = mix_batch(image, label, step, augment=replace(Augment(), **spec), seed=0, epoch=0)
        assert 0.5 <= mixed.fraction <= 1 and torch.equal(mixed.partner_label, label.roll(1))
        expected = mixed.fraction * 10 * label + (1 - mixed.fraction) * 10 * mixed.partner_label
        assert torch.allclose(mixed.image.float().mean((1, 2, 3)), expected, atol=0.05)
        dtypes.add(mixed.image.dtype)
    assert len(dtypes) == len(spec)


def test_some_steps_and_the_last_epochs_do_not_mix(monkeypatch, prepared, tmp_path):
    image, label = torch.zeros(4, 8, 8, 3, dtype=torch.uint8), torch.arange(4)
    augment = replace(Augment(), mixup=0.2, cutmix=1.0, mix_fraction=0.7)
    steps = [mix_batch(image, label, step, augment=augment, seed=0, epoch=0) for step in range(1000)]
    assert 0.65 < np.mean([mixed.partner_label is not None for mixed in steps]) < 0.75
    epochs = set()
    monkeypatch.setattr(
        "animalclf.training.train.mix_batch", lambda *batch, epoch, **named: epochs.add(epoch) or MixedBatch(*batch[:2])
    )
    train_into(tmp_path / "run", quick(3, augment__cutmix=1.0, augment__mix_off_epochs=1), prepared)
    assert epochs == {0, 1}


def test_the_loss_of_a_mixture_is_the_mixture_of_the_losses():
    logits, label = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
    fixed = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    image = torch.zeros(4, 2, 2, 3, dtype=torch.uint8)
    with torch.no_grad():
        fixed[1].bias.copy_(logits[0])
    config = tiny_config(1, optim__name="sgd", optim__momentum=0, optim__lr=1e-9)
    batch = {"image": image.numpy(), "label": label.numpy(), "index": np.arange(4)}

    class Float(torch.nn.Module):
        def forward(self, x):
            return fixed(x.float())

    def run(**named):
        optimizer = torch.optim.SGD(fixed.parameters(), lr=0)
        metrics, _ = loop.train_epoch(Float(), [batch], optimizer, TrainPass(config, 0, np.array([4]), **named))
        return metrics.loss

    def mixing(image, label, step):
        return MixedBatch(image, label, label.roll(1), 0.7)

    loss, partner_loss = (torch.nn.functional.cross_entropy(logits[[0] * 4], each) for each in (label, label.roll(1)))
    assert run() == pytest.approx(float(loss), rel=1e-5)
    assert run(mix=mixing) == pytest.approx(float(0.7 * loss + 0.3 * partner_loss), rel=1e-5)


def test_a_trace_of_a_few_steps_opens_as_json(tmp_path, prepared):
    run = train_into(tmp_path, quick(1, train__batch_size=4, train__profile=True), prepared)
    with gzip.open(run.url("profile", "trace.json.gz")) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert any("conv" in str(name) for name in names) and any("Adam" in str(name) for name in names)


def test_writes_to_a_bucket_run_in_a_thread_in_their_order(tmp_path):
    def refuse():
        raise UserError("no room")

    writer, may_end, done = checkpoint.Writer(Run("s3://bucket/run"), torch.device("cpu")), threading.Event(), []
    writer.add(lambda: done.append("first") if may_end.wait(60) else None)
    assert not done
    may_end.set()
    writer.add(lambda: done.append("second"))
    writer.wait()
    assert done == ["first", "second"]
    writer.add(refuse)
    with pytest.raises(UserError, match="no room"):
        writer.wait()
    with pytest.raises(UserError, match="no room"):
        checkpoint.Writer(Run(str(tmp_path)), torch.device("cpu")).add(refuse)


@pytest.mark.parametrize(
    ("finished", "epochs", "text"),
    [
        (0, 1, " 1 epoch here"),
        (0, 3, " 3 epochs here"),
        (1, 3, " epochs 2 to 3 here"),
        (3, 3, " 3 epochs, all finished, here"),
    ],
)
def test_the_first_line_says_which_epochs_are_left(tmp_path, finished, epochs, text):
    run = Run(str(tmp_path / "run"))
    run.write_metrics([EpochRow(number) for number in range(1, finished + 1)])
    prepared = tiny_prepared(tmp_path / "prepared", (4, 2, 0))
    placement = launch.Placement(Workers.fixed(1), False, "here")
    assert f"classes,{text}; run folder" in launch._plan(tiny_config(epochs), prepared, run, placement)


@pytest.mark.parametrize("name", ["a/b", "../x", "", None, " ", "..", "a\\b", "a\nb"])
def test_a_name_that_is_empty_or_a_path_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^name: .* is not the name of a run; use text without /"):
        animalclf.train("photos", set={"name": name})
    assert not list(tmp_path.iterdir())


def test_a_small_head_trains_on_one_thread():
    torch.set_num_threads(2)
    with one_thread_for_small(torch.nn.Linear(10, 3)):
        assert torch.get_num_threads() == 1
    with one_thread_for_small(torch.nn.Linear(1000, 1000)):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 2
