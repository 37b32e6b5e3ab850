"""Cross-validation: how the folds are dealt, what a training with folds measures and keeps, and its resumption."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_config, tiny_prepared
from rich.console import Console

from animalclf import config as configuration
from animalclf.data.folds import folded_rows, image_folds
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.data.prepared_set import open_prepared
from animalclf.data.sampler import sampling_plan
from animalclf.errors import UserError
from animalclf.features.temperature import apply_temperature, cross_calibrate, fit_temperature, logits_of
from animalclf.inference.evaluate import evaluate
from animalclf.inference.features import image_features
from animalclf.inference.known import known_scorer
from animalclf.metrics import from_probabilities
from animalclf.models import build
from animalclf.predictions import class_probabilities
from animalclf.report.leaderboard import leaderboard
from animalclf.report.leaderboard_render import table, to_csv, to_markdown
from animalclf.report.page import write_report
from animalclf.rows import EpochEnd
from animalclf.runs import Run
from animalclf.training import checkpoint, checks, cross_validation, launch
from animalclf.training import train as training
from animalclf.training.context import TrainContext
from animalclf.training.display import results_table
from animalclf.training.distributed import RankContext
from animalclf.training.selection import selection_context
from animalclf.utils import storage

FROZEN = {"model__trainable": ["head"], "augment__flip": False, "augment__rotation": 0, "augment__shift": 0}
LITE = {"model__name": "efficientnet_lite0", "model__input_size": 32, "data__stored_size": 40, "augment__zoom": [1, 1]}


def head_config(epochs=3, folds=3, **sets):
    """A head trained by gradient on the features of a frozen base."""
    return tiny_config(epochs, **FROZEN, **LITE, train__folds=folds, optim__lr=1e-2, train__batch_size=8, **sets)


def fitted_config(folds=3, **sets):
    return head_config(1, folds, train__heads=["lda"], **sets)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """48 images of three classes, 4 of them for the test, with pairs of duplicates among the first 12."""
    tiny = tiny_prepared(tmp_path_factory.mktemp("prepared"), (20, 16, 12), size=40)
    manifest = tiny.manifest.assign(group=np.where(np.arange(48) < 12, np.arange(48) // 2 * 2, np.arange(48)))
    manifest.loc[[18, 19, 35, 47], "split"] = "test"
    storage.write_table(f"{tiny.root}/manifest.parquet", manifest)
    return open_prepared(tiny.root)


def train_into(folder, config, prepared, events=None):
    run, images = Run(str(folder)), load_images(prepared)
    launch.record_run(config, prepared, run)
    report = training.ignore if events is None else events.append
    training.train(config, prepared, run, lambda plan, passes: MemoryLoader(plan, images), RankContext(), report=report)
    return run


@pytest.fixture(scope="module")
def folded(prepared, tmp_path_factory):
    """A finished training of folds, and its progress events."""
    events = []
    return train_into(tmp_path_factory.mktemp("folded") / "run", head_config(), prepared, events), events


def test_folds_hold_every_class_and_keep_duplicates_together(prepared):
    rows, fold = folded_rows(prepared), image_folds(prepared, head_config())
    assert len(rows) == 44 and set(prepared.manifest["split"].iloc[rows]) == {"train", "val"}
    for label in range(3):
        counts = np.bincount(fold[prepared.labels[rows] == label], minlength=3)
        assert counts.min() > 0 and counts.max() - counts.min() <= 2
    assert all(len(set(fold[prepared.groups[rows] == group])) == 1 for group in prepared.groups[rows])
    other = replace(head_config(), data=replace(head_config().data, split_seed=1))
    assert not np.array_equal(image_folds(prepared, other), fold)
    assert np.array_equal(image_folds(prepared, replace(head_config(), seed=5)), fold)


def test_every_image_is_predicted_once_by_a_model_without_its_fold(folded, prepared):
    run, rows, fold = folded[0], folded_rows(prepared), image_folds(prepared, head_config())
    result, predictions = run.result(), run.predictions("val")
    assert predictions["path"].tolist() == prepared.manifest["path"].iloc[rows].tolist()
    assert predictions["group"].tolist() == prepared.groups[rows].tolist()
    raw = np.empty((44, 3), np.float32)
    for number in range(3):
        part = cross_validation.fold_run(run, number)
        stored = part.predictions("val")
        assert stored["path"].tolist() == prepared.manifest["path"].iloc[rows[fold == number]].tolist()
        raw[fold == number] = class_probabilities(stored, prepared.classes)
        # No image of the fold is looked at before the end.
        assert len(part.metrics()) == 3 and not part.metrics()[0].val
        assert part.metrics()[0].train_rows == (fold != number).sum()
        assert not part.has_checkpoint("best") and not part.has_checkpoint("last")
    labels = prepared.labels[rows]
    expected = cross_calibrate(raw, labels, fold)
    np.testing.assert_allclose(class_probabilities(predictions, prepared.classes), expected, atol=1e-6)
    evaluation = from_probabilities(expected.astype(np.float32), labels, prepared.classes, prepared.groups[rows])
    assert result.val.metrics == pytest.approx(evaluation.metrics) and result.val.intervals == evaluation.intervals
    assert result.metrics["balanced_accuracy"] == result.val["balanced_accuracy"]
    assert result.calibration_error == result.val["ece"]
    assert result.temperature == pytest.approx(fit_temperature(logits_of(raw), labels))
    assert [row.rows for row in result.folds] == np.bincount(fold).tolist()
    assert result.measured == "out of fold, 3 folds" and result.selected_on == "" and not result.selected
    accuracy = np.average([row.metrics["accuracy"] for row in result.folds], weights=np.bincount(fold))
    assert accuracy == pytest.approx(result.val["accuracy"])


def test_the_model_is_that_of_a_training_on_all_images(folded, prepared, tmp_path):
    manifest = prepared.manifest.assign(split=prepared.manifest["split"].replace("val", "train"))
    everything = replace(prepared, manifest=manifest)
    alone = train_into(tmp_path / "alone", head_config(folds=0, train__select="last"), everything)
    weights, expected = (checkpoint.load(run.checkpoint("best"))["model"] for run in (folded[0], alone))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    result, other = folded[0].result(), alone.result()
    assert (result.rows, other.val, result.best_epoch) == ({"train": 44, "val": 0, "test": 4}, None, 3)
    # The test images are predicted at the temperature of the folds.
    raw = class_probabilities(alone.predictions("test"), prepared.classes)
    calibrated = apply_temperature(raw, result.temperature)
    np.testing.assert_allclose(
        class_probabilities(folded[0].predictions("test"), prepared.classes), calibrated, atol=1e-5
    )


def test_each_image_has_the_distances_without_its_fold_and_the_file_those_of_all(folded, prepared):
    run = folded[0]
    model, info = checkpoint.load_model(run.root)
    scorer = known_scorer(run, model, info)
    folds = [Run(run.url("folds", str(number))).predictions("val") for number in range(3)]
    assert sum(map(len, folds)) == len(scorer.validation) == 44
    assert all(np.isfinite(table["distance"]).all() for table in folds)
    out_of_fold = np.concatenate([table["distance"] for table in folds])
    in_sample = scorer.distances(image_features(run.root, split="train").features)
    assert out_of_fold.mean() > in_sample.mean()  # an image is nearest to distributions that it is part of


def test_events_name_their_fold_and_features_are_computed_once(folded):
    events = folded[1]
    parts = [event.part for event in events if isinstance(event, EpochEnd)]
    assert parts == [part for part in ("fold 1 of 3", "fold 2 of 3", "fold 3 of 3", "all images") for _ in range(3)]
    assert {event.part for event in events if getattr(event, "phase", "") == "features"} == {"fold 1 of 3"}


def test_an_interrupted_training_continues_in_its_fold(folded, prepared, tmp_path, monkeypatch):
    calls = []

    def interrupted(event):
        if isinstance(event, EpochEnd):
            calls.append((event.part, event.row.epoch))
            if calls[-1] == ("fold 2 of 3", 2):
                raise KeyboardInterrupt

    folder = tmp_path / "run"
    images, run = load_images(prepared), Run(str(folder))
    launch.record_run(head_config(), prepared, run)

    def train(report):
        training.train(
            head_config(), prepared, run, lambda plan, passes: MemoryLoader(plan, images), RankContext(), report=report
        )

    with pytest.raises(KeyboardInterrupt):
        train(interrupted)
    assert not run.finished()
    calls.clear()
    train(interrupted)
    assert calls[0] == ("fold 2 of 3", 3) and len(calls) == 1 + 3 + 3
    assert run.result().val == folded[0].result().val
    assert run.predictions("val").equals(folded[0].predictions("val"))
    calls.clear()
    train(interrupted)  # nothing is left to train
    assert calls == [] and run.result().val == folded[0].result().val


def test_evaluate_gives_the_out_of_fold_metrics_and_not_those_of_trained_images(folded, prepared, tmp_path):
    run = folded[0]
    for data in (None, prepared.root):
        result = evaluate(run.root, data=data, out=str(tmp_path))
        assert result.metrics == run.result().val.metrics and result.intervals == run.result().val.intervals
        assert result.notes == ["out of fold: each image by a model without its fold (3 folds)"]
    tested = evaluate(run.root, split="test", out=str(tmp_path))
    assert tested.rows == 4 and tested["loss"] == pytest.approx(run.result().test["loss"], rel=1e-4)


def test_fitted_heads_are_cross_validated(prepared, tmp_path):
    run = train_into(tmp_path / "run", fitted_config(), prepared)
    result = run.result()
    assert result.val.rows == 44 and len(result.folds) == 3 and [head.kind for head in result.heads] == ["lda"]
    assert result.metrics["balanced_accuracy"] > 0.8
    rows = [row for number in range(3) for row in cross_validation.fold_run(run, number).metrics()]
    assert [row.features_seconds is not None for row in rows] == [True, False, False]
    assert run.metrics()[0].features_seconds is None


def test_labels_of_noise_are_not_learned_out_of_fold(prepared, tmp_path):
    labels = np.random.default_rng(0).permutation(prepared.manifest["label"])
    noise = replace(prepared, manifest=prepared.manifest.assign(label=labels, group=np.arange(48)))
    assert train_into(tmp_path / "run", fitted_config(), noise).result().metrics["balanced_accuracy"] < 0.6


def test_a_whole_network_is_cross_validated(prepared, tmp_path):
    config = tiny_config(1, train__folds=2, model__input_size=76, data__stored_size=76)
    images = tiny_prepared(tmp_path / "prepared", (4, 4), size=76)
    run = train_into(tmp_path / "run", config, images)
    assert run.result().val.rows == 8 and run.result().rows == {"train": 8, "val": 0, "test": 0}
    model, info = checkpoint.load_model(run.root)
    assert model.temperature == info.temperature == run.result().temperature != 1
    assert build(config.model, 2).temperature == 1


def test_how_it_was_measured_is_shown_everywhere(folded, prepared, tmp_path):
    selected = train_into(tmp_path / "selected", head_config(folds=0), prepared)
    last = train_into(tmp_path / "last", head_config(folds=0, train__select="last"), prepared)
    for run, text in (
        (folded[0], "out of fold, 3 folds"),
        (selected, "validation, which selected the epoch"),
        (last, "validation"),
    ):
        assert run.result().measured == text
        board = leaderboard([run])
        assert board.rows[0].measured == text
        console = Console(width=100, file=io.StringIO(), record=True)
        console.print(table(board))
        console.print(results_table(run.result()))
        output = console.export_text()
        assert output.count(text) >= 2 and ("optimistic" in output) == (run is selected)
        assert text in to_csv(board) and f"| {text} |" in to_markdown(board)
        page = Path(write_report([run], str(tmp_path / "page"), title="t", board=board).report).read_text()
        assert text in page and ('id="folds"' in page) == (run is folded[0])
    assert json.loads(Path(selected.url("result.json")).read_text())["selected_on"] == "val"
    assert last.result().best_epoch == 3
    with pytest.raises(UserError, match=r"validated on other images than \S+: train\.folds: 3 -> 0; \d"):
        leaderboard([folded[0], selected])


def test_held_out_training_images_select_the_epoch(prepared, tmp_path):
    """The labels of the validation images are wrong: an epoch that they select would be another."""
    config = head_config(4, folds=0, train__select_fraction=0.25, train__patience=3)
    run = train_into(tmp_path / "run", config, prepared)
    val = prepared.manifest["split"] == "val"
    wrong = prepared.manifest["label"].where(
        ~val, prepared.manifest["label"].map(lambda name: f"class{2 - int(name[-1])}")
    )
    other = train_into(tmp_path / "wrong", config, replace(prepared, manifest=prepared.manifest.assign(label=wrong)))
    result, training_rows = run.result(), len(prepared.rows("train"))
    rows = run.metrics()
    assert [row.val for row in rows] == [row.val for row in other.metrics()]
    assert {row.train_rows + row.val_rows for row in rows} == {training_rows}
    assert rows[0].val_rows == pytest.approx(training_rows / 4, abs=3)
    assert result.val.rows == val.sum() and result.selected_on == "" and result.measured == "validation"
    assert result.best_epoch == other.result().best_epoch and result.val.metrics != other.result().val.metrics


def test_no_class_is_held_out_whole_and_duplicates_select_together(prepared):
    config = head_config(folds=0, train__select_fraction=0.5)
    manifest = prepared.manifest.assign(group=np.where(prepared.labels == 2, 99, prepared.groups))
    images = replace(prepared, manifest=manifest)
    plan = sampling_plan(images, config)
    plan = selection_context(TrainContext(config, images, plan, None, RankContext(), None, training.ignore)).plan
    train, held_out = plan.rows["train"], plan.rows["val"]
    assert set(images.labels[train]) == {0, 1, 2} and not set(images.groups[train]) & set(images.groups[held_out])
    assert sorted([*train, *held_out]) == images.rows("train").tolist()


@pytest.mark.parametrize(
    "sets, message",
    [
        ({"train__folds": 1}, r"train\.folds \(--folds\): 0 for none, or at least 2, not 1"),
        ({"train__folds": 3, "data__limit": 10}, r"data\.limit \(--limit\): not with train\.folds"),
        ({"train__folds": 3, "data__folds": 3}, r"data\.folds: not with train\.folds"),
        ({"train__folds": 3, "train__patience": 2}, r"train\.patience: not with train\.folds"),
        ({"train__folds": 3, "train__select_fraction": 0.1}, r"train\.select_fraction: not with train\.folds"),
        (
            {"train__select": "last", "train__select_fraction": 0.1},
            r"train\.select_fraction: 0 with train\.select=last",
        ),
        ({"train__select": "last", "train__patience": 2}, r"train\.patience: 0 with train\.select=last"),
    ],
)
def test_settings_that_do_not_fit_folds_are_refused(sets, message):
    with pytest.raises(UserError, match=message):
        tiny_config(3, **sets)


def test_classes_that_are_too_small_for_the_folds_are_named(prepared, tmp_path):
    with pytest.raises(
        UserError,
        match=r"train\.folds=12: classes with fewer different images than folds: 'class2' .11.; use at most --folds 11",
    ):
        image_folds(prepared, head_config(folds=12))
    manifest = prepared.manifest.assign(group=np.where(prepared.labels == 2, 99, prepared.groups))
    with pytest.raises(UserError, match=r"'class2' \(1\); add images, or remove these classes"):
        image_folds(replace(prepared, manifest=manifest), head_config())
    info = {**prepared.info, "given_splits": ["test", "val"]}
    with pytest.raises(UserError, match="gives its own validation images"):
        image_folds(replace(prepared, info=info), head_config())
    for name, count in (("ape", 3), ("bee", 9)):
        for number in range(count):
            file = tmp_path / "photos" / name / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"not read")
    with pytest.raises(UserError, match=r"train\.folds=4: classes .* 'ape' \(3\); use at most --folds 3"):
        checks.open_or_prepare(str(tmp_path / "photos"), head_config(folds=4), str(tmp_path / "prepared"))


def test_a_run_of_folds_cannot_be_extended(folded):
    for key, change in (("epochs", "3 -> 9"), ("folds", "3 -> 9")):
        tree = configuration.to_dict(head_config())
        config = configuration.from_dict({**tree, "train": {**tree["train"], key: 9}})
        with pytest.raises(UserError, match=rf"train\.{key}: {change}: a run with folds cannot be extended"):
            checks.lock_run(folded[0].root, config, resume=True)
