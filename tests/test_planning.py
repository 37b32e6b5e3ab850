"""Plans of trainings and comparisons: their numbers are those of what then runs, and nothing is written."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers import LITE, lite_config, spec_of

import animalclf
from animalclf import UserError
from animalclf.cli import main
from animalclf.config import Config
from animalclf.data.prepared_set import Prepared, open_prepared
from animalclf.models.classifier import count_parameters
from animalclf.planning import comparison, estimate, images, measure, rehearsal, sample
from animalclf.planning.estimate import Setting
from animalclf.planning.machine import Machine, Node, find_machine, on_worker
from animalclf.planning.plan import Request, memory_problems, plan, setting_of, worker_count
from animalclf.planning.show import comparison_lines, training_table
from animalclf.planning.timeline import MAX_IMAGES, SampleSize, Timeline, feature_seconds, fixed_seconds, of_epochs
from animalclf.raycompat.patches import OWN_RAY_VARIABLE
from animalclf.rows import EpochEnd, EpochRow, Measured, PhaseProgress, TrainingPlan
from animalclf.runs import Run
from animalclf.training import checkpoint, known_scores, similar_runs
from animalclf.training.resources import Workers
from animalclf.utils.console import console
from animalclf.utils.text import size_text

MACHINE = Machine([Node(2, 0, 16 * 10**9, 4 * 10**9)])
SETS = {
    **LITE,
    "data.stored_size": 80,
    "train.batch_size": 8,
    "train.epochs": 3,
    "train.precision": "fp32",
    "augment.flip": True,
}
FIXED = {"start": 1.0, "Ray": 2.0, "workers": 4.0, "features": 0.0, "epochs": 0.0, "evaluation": 0.5, "end": 1.0}
MEASURED = Measured(fixed=FIXED, step_seconds=2.0, step_images=8.0, best_bytes=100, last_bytes=300)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 different images of 50 px in three classes."""
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label, count in (("ape", 12), ("bee", 8), ("cow", 4)):
        (root / label).mkdir()
        for number in range(count):
            image = generator.integers(0, 255, (50, 50, 3), np.uint8)
            cv2.imwrite(str(root / label / f"{number}.png"), image)
    return root


def files_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def total_size(*paths: str) -> int:
    return sum(Path(path).stat().st_size for path in paths)


def setting(found: images.Images, machine: Machine = MACHINE, workers: int = 1, **measured: object) -> Setting:
    values = replace(MEASURED, **measured)
    return Setting(found.config, found, machine, workers, False, values, sample.PrepareSeconds(0.1, 0.05), False)


def in_this_process(task: sample.SampleTask) -> sample.SampleAnswer:
    """`measure.run` without the import of PyTorch in another process."""
    with tempfile.TemporaryDirectory() as folder:
        return rehearsal.rehearse(task, folder, time.time())


def test_the_plan_of_a_training_has_the_numbers_of_the_training(
    tiny_set: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, before = tmp_path / "run", files_below(Path(tiny_set.root))
    about = {"recipe": "big_cnn", "set": SETS, "out": out, "local": True, "cpu": True}
    planned = animalclf.plan_training(tiny_set.root, **about)
    assert not files_below(tmp_path), "a plan writes nothing"
    assert files_below(Path(tiny_set.root)) == before

    result = animalclf.train(tiny_set.root, **about)
    run = Run(str(out))
    model, _ = checkpoint.load_model(run.root)
    assert planned.rows == result.rows and planned.class_counts == {"class0": 12, "class1": 8, "class2": 4}
    assert planned.imbalance == 3.0
    assert planned.steps * planned.epochs == 3 * (-(-result.rows["train"] // 8)) == 9
    assert planned.measured.parameters == count_parameters(model)
    assert planned.measured.trainable == count_parameters(model, trainable_only=True)
    assert planned.measured.precision == result.precision
    checkpoints = total_size(run.checkpoint("best"), run.checkpoint("last"))
    assert planned.written["checkpoints"] == pytest.approx(checkpoints, rel=0.01)
    assert set(planned.written) == {"checkpoints", "other files of the run"}
    assert planned.read == {"prepared set": total_size(*tiny_set.shard_paths())}
    assert planned.memory["worker"] > tiny_set.pixel_bytes and planned.memory["worker"] > 10**8
    assert planned.total_seconds == pytest.approx(sum(planned.seconds.values()))
    assert TrainingPlan.from_dict(planned.to_dict()) == planned

    with pytest.raises(UserError, match="already contains a run"):
        animalclf.plan_training(tiny_set.root, **about)
    with pytest.raises(UserError, match="the configuration differs"):
        animalclf.plan_training(tiny_set.root, **about | {"set": SETS | {"optim.lr": 1.0}}, resume=True)
    monkeypatch.setattr(measure, "run", in_this_process)
    longer = animalclf.plan_training(tiny_set.root, **about | {"set": SETS | {"train.epochs": 4}}, resume=True)
    one = longer.measured
    steps = 3 * one.step_seconds * (18 / 3) / one.step_images
    rest = 18 * one.input_seconds + 6 * one.validate_seconds + one.epoch_seconds
    assert longer.seconds["epochs"] == pytest.approx(one.fixed["epochs"] + steps + rest), "one epoch is left"


def test_fitted_heads_are_planned_at_the_size_that_they_will_have(
    tiny_set: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(measure, "run", in_this_process)
    sets = {
        **LITE,
        "data.stored_size": 80,
        "train.heads": ["logistic", "kernel_ridge"],
        "train.epochs": 1,
        "model.trainable": ["head"],
    }
    sets |= {"augment.flip": False, "augment.rotation": 0, "augment.shift": 0, "augment.zoom": [1, 1]}
    about = {"recipe": "big_cnn", "set": sets, "out": tmp_path / "run", "local": True, "cpu": True}
    planned = animalclf.plan_training(tiny_set.root, **about)
    result = animalclf.train(tiny_set.root, **about)
    run, rows = Run(result.run), result.rows["train"] + result.rows["val"]
    assert planned.steps == 0 and "heads" in planned.seconds and "features" in planned.seconds
    checkpoints = total_size(run.checkpoint("best"), run.checkpoint("last"))
    assert planned.written["checkpoints"] == pytest.approx(checkpoints, rel=0.01)
    stored = [path for path in files_below(Path(tiny_set.root)) if path.name.startswith("features-")]
    assert planned.written["features"] == rows * (4 * 1280 + 8) == pytest.approx(stored[0].stat().st_size, rel=0.02)
    head = sum(
        value.numel() for name, value in checkpoint.load(run.checkpoint("best"))["model"].items() if "head" in name
    )
    assert planned.measured.trainable == head
    again = animalclf.plan_training(tiny_set.root, **about | {"out": tmp_path / "other"})
    for path in stored:
        path.unlink()
    assert "features" not in again.seconds and "features" not in again.written, "they are cached"


def test_unprepared_images_are_counted_from_the_listing(photos: Path, tmp_path: Path):
    found = images.find_images(str(photos), lite_config(), str(tmp_path / "prepared"))
    assert found.prepared is None and found.class_counts == {"ape": 12, "bee": 8, "cow": 4}
    assert found.rows["train"] + found.rows["val"] == 24 and found.rows["val"] in (4, 5, 6)
    assert found.source_bytes == sum(path.stat().st_size for path in photos.rglob("*.png"))
    small, seconds = sample.write_sample(sample.choose(found, 100), str(tmp_path / "sample"))
    assert seconds.image > 0 and seconds.duplicates > 0
    assert small.classes == ["ape", "bee", "cow"] and small.stored_size == 40
    assert {len(small.rows("train")), len(small.rows("val"))} == {18, 6}
    written = sum(path.stat().st_size for path in (tmp_path / "sample").iterdir() if path.suffix == ".parquet")
    assert estimate.prepared_bytes(found) == pytest.approx(written, rel=0.15)


def test_a_sample_is_spread_over_the_classes(tiny_set: Prepared, tmp_path: Path):
    found = images.find_images(tiny_set.root, lite_config(), "")
    chosen = sample.choose(found, 6)
    assert set(chosen.rows["label"]) == {"class0", "class1", "class2"}
    copied, seconds = sample.write_sample(chosen, str(tmp_path / "sample"))
    assert seconds == sample.PrepareSeconds() and len(copied.manifest) == 6
    assert open_prepared(copied.root).stored_size == tiny_set.stored_size


def test_unreadable_images_are_named(tmp_path: Path):
    for label in ("ape", "bee"):
        (tmp_path / label).mkdir()
        for number in range(4):
            (tmp_path / label / f"{number}.jpg").write_bytes(b"\xff\xd8\xff nothing")
    found = images.find_images(str(tmp_path), lite_config(), str(tmp_path / "prepared"))
    with pytest.raises(UserError, match="of 8 sampled images 0 are readable"):
        sample.write_sample(sample.choose(found, 8), str(tmp_path / "sample"))


def test_a_rehearsal_tells_what_an_image_costs_from_what_a_start_costs():
    size = SampleSize(train=6, val=2, steps=2, workers=2)
    rows = [
        EpochRow(1, workers=2, train_seconds=5.0, step_seconds=5.0, seconds=9.0, features_seconds=3.0),
        EpochRow(
            2, workers=2, train_seconds=4.0, step_seconds=2.5, copy_seconds=0.5, validate_seconds=0.2, seconds=5.0
        ),
    ]
    timeline = Timeline(100.0, {"start": 101.0, "Ray": 103.0, "prepare": 110.0, "trained": 140.0, "end": 141.5})
    for done, seconds in ((2, 1.6), (6, 2.0), (8, 2.2)):
        timeline.events.append((PhaseProgress("features", done, 8, seconds), 115.0))
    timeline.events += [(EpochEnd(rows[0]), 125.0), (EpochEnd(rows[1]), 131.0)]
    assert feature_seconds(timeline) == pytest.approx(0.1), "the first batch warms up"
    measured = replace(of_epochs(rows, size), feature_seconds=0.2)
    assert measured.step_seconds == 1.5 and measured.step_images == 1.5, "two workers, three images a step"
    assert measured.epoch_seconds == pytest.approx(0.8) and measured.validate_seconds == pytest.approx(0.2)
    fixed = fixed_seconds(timeline, rows, size, measured)
    assert MAX_IMAGES == known_scores.MAX_IMAGES, "a copy, without the import of PyTorch"
    expected = {"start": 1.0, "Ray": 2.0, "workers": 6.0, "features": 2.2, "epochs": 1.0, "evaluation": 8.0, "end": 1.5}
    assert fixed == pytest.approx(expected)


def test_a_larger_set_takes_longer_by_its_images_alone(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "run", in_this_process)
    monkeypatch.setenv(OWN_RAY_VARIABLE, "1")  # a cluster in this process: nothing is sent to a worker
    config = lite_config(train__batch_size=8, train__epochs=2)
    found = images.find_images(str(photos), config, str(tmp_path / "prepared"))
    request = Request(replace(MACHINE, is_cluster=True), 1, cpu=True)
    one = setting_of(found, config, request)
    ten = replace(one, images=replace(found, rows={**found.rows, "train": 10 * found.rows["train"]}))
    small, large = (estimate.phase_seconds(each) for each in (one, ten))
    assert list(small) == ["start", "prepare", "workers", "epochs", "evaluation", "end"]
    assert {name for name in small if large[name] > small[name]} == {"epochs", "evaluation"}
    assert large["epochs"] < 10 * small["epochs"] + 1e-9
    ten = replace(one, images=replace(found, class_counts=dict.fromkeys(found.class_counts, 100)))
    grown = estimate.phase_seconds(ten)["prepare"] - small["prepare"]
    assert grown == pytest.approx(276 * (one.prepare.image / 2 + one.prepare.duplicates))


def test_time_and_cost_follow_from_the_steps(tiny_set: Prepared):
    found = images.find_images(tiny_set.root, lite_config(epochs=10, train__batch_size=8), "")
    one = plan(setting(found), tiny_set.root, "runs/a", price_per_hour=3.0)
    assert one.seconds["epochs"] == pytest.approx(10 * (18 / 8) * 2.0, rel=0.01), "18 images, 8 of them in 2 s"
    assert "prepare" not in one.seconds and one.devices == 1
    assert one.price == pytest.approx(3.0 * one.total_seconds / 3600)
    assert plan(setting(found), tiny_set.root, "runs/a").price is None
    assert one.rewritten == 10 * 400

    cluster = Machine([Node(8, 4, 10**11, 10**10)] * 2, is_cluster=True)
    gpus = plan(setting(found, cluster, 6, device="cuda", gpu_bytes=10**9, gpu_total=8 * 10**10), "d", "r", 3.0)
    assert gpus.devices == 6 and setting(found, cluster, 6, device="cuda").nodes == 2
    assert gpus.seconds["epochs"] == pytest.approx(one.seconds["epochs"] / 6, rel=0.01)
    assert gpus.memory["gpu"] == 10**9 + tiny_set.pixel_bytes


def test_folds_are_counted(tiny_set: Prepared):
    found = images.find_images(tiny_set.root, lite_config(train__folds=4, train__batch_size=8), "")
    assert found.rows == {"train": 24, "val": 0, "test": 0}
    folds = setting(found)
    assert folds.passes == [(18, 0, 6)] * 4 + [(24, 0, 0)] and plan(folds, "d", "r").trainings == 5


def test_cached_views_are_planned_with_their_bytes(tiny_set: Prepared):
    config = lite_config(train__cached_views=3, model__trainable=["last", "head"])
    found = images.find_images(tiny_set.root, config, "")
    views, maps = plan(setting(found, feature_seconds=2.0, map_bytes=1000), "d", "r"), 24 + 3 * 18
    assert views.written["cached views"] == maps * 1000
    plain = plan(setting(replace(found, config=lite_config()), feature_seconds=2.0), "d", "r")
    assert views.seconds["features"] - plain.seconds["features"] == pytest.approx(3 * 18 * 2)
    with pytest.raises(UserError, match=r"train\.cached_views: the maps take .* set a smaller .*_CACHE"):
        plan(setting(found, map_bytes=10**15), "d", "r")


def test_what_does_not_fit_names_the_key(tiny_set: Prepared):
    config = lite_config(train__cache="memory")
    found = images.find_images(tiny_set.root, config, "")
    small = Machine([Node(2, 0, 10**9, 1000)])
    with pytest.raises(UserError, match=r"train\.cache=memory.*data\.stored_size"):
        plan(setting(found, small), "d", "r")
    on_disk = replace(found, config=lite_config())
    problems = plan(setting(on_disk, small, worker_bytes=2 * 10**9), "d", "r").problems
    assert any("train.batch_size" in problem for problem in problems)
    assert any("from disk" in problem and "data.stored_size" in problem for problem in problems)
    assert not memory_problems(config, {"worker": 5}, {"worker": 100})
    assert "train.accumulate=2" in memory_problems(config, {"gpu": 99}, {"gpu": 100})[0]


def test_a_killed_measurement_is_out_of_memory(tiny_set: Prepared):
    found = images.find_images(tiny_set.root, lite_config(), "")
    task = sample.SampleTask(lite_config(), sample.choose(found, 6), [1], 16)
    killed: subprocess.CompletedProcess[str] = subprocess.CompletedProcess([], -9, "", "")
    assert "train.batch_size (now 16)" in measure._failure(task, killed)
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nKeyError: 'x'")
    assert "KeyError: 'x'" in measure._failure(task, failed)


def test_more_workers_than_the_cluster_has_are_refused():
    cluster = Machine([Node(4, 0, 10**9, 10**9)], is_cluster=True)
    assert worker_count(Workers.parse("3"), cluster, local=False, cpu=False) == 3
    with pytest.raises(UserError, match="--workers 5: 1 node, 4 CPUs have room for 3"):
        worker_count(Workers.parse("5"), cluster, local=False, cpu=False)
    assert worker_count(Workers.parse("2:8"), Machine([Node(4, 8, 1, 1)]), local=False, cpu=False) == 8


def test_a_comparison_costs_its_trials(tiny_set: Prepared, monkeypatch: pytest.MonkeyPatch):
    timed: list[str] = []

    def measured(found: images.Images, config: object, request: Request) -> Setting:
        timed.append(config.model.name)  # type: ignore[attr-defined]
        return replace(setting(found), config=config)

    monkeypatch.setattr(comparison, "setting_of", measured)
    spec = spec_of(recipes="big_cnn", seeds="3", grid=["train.epochs=9,18"], overrides={**LITE, "data.stored_size": 80})
    request = Request(MACHINE, 1, price_per_hour=1.0)
    whole = comparison.plan_comparison(spec, tiny_set.root, "runs/c", "prepared", request)
    assert whole.trials == 6 and [cost.trials for cost in whole.costs] == [3, 3]
    assert timed == [spec.trials[0].config.model.name], "trials that differ in epochs or seed share the timed steps"
    assert whole.total_seconds == whole.most_seconds
    assert whole.total_seconds == pytest.approx(whole.shared_seconds + sum(3 * cost.seconds for cost in whole.costs))
    assert whole.price == pytest.approx(whole.total_seconds / 3600)
    ended = [trial.slug for trial in spec.trials[:5]]
    rest = comparison.plan_comparison(spec, tiny_set.root, "runs/c", "prepared", request, ended=ended)
    assert rest.trials == 1 and rest.total_seconds < whole.total_seconds
    assert "6 trials, one at a time" in comparison_lines(whole)[0]


def test_asha_is_expected_to_train_fewer_epochs():
    assert comparison.expected_fraction(1, 27) == 1.0
    assert comparison.expected_fraction(20, 1) == 1.0, "no rung before the only epoch"
    few, many = comparison.expected_fraction(5, 27), comparison.expected_fraction(50, 27)
    assert 1 / 9 < many < few < 1


def test_flags(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["train", "--data", str(tmp_path), "--price-per-hour", "2"]) == 2
    assert "--price-per-hour: needs --dry-run" in capsys.readouterr().err
    assert main(["train", "--data", str(tmp_path), "--dry-run", "--price-per-hour", "-1"]) == 2
    assert "a number, at least 0" in capsys.readouterr().err
    assert main(["compare", "--data", str(tmp_path / "none"), "--recipes", "quick", "--dry-run"]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_the_table_has_every_number(tiny_set: Prepared):
    found = images.find_images(tiny_set.root, lite_config(epochs=2), "")
    with console.capture() as capture:
        console.print(training_table(plan(setting(found), "d", "runs/a", 2.0)))
    text = " ".join(capture.get().replace("│", " ").split())  # of any width
    for part in ("imbalance 3.0", "4: 2 epochs of 2", "prepared set", "checkpoints 400 B", "at 2 for a node-hour"):
        assert part in text
    assert [size_text(size) for size in (5, 1500, 2 * 10**7, 1.25e9)] == ["5 B", "1.5 kB", "20 MB", "1.2 GB"]


def similar_run(folder: Path, config: Config, prepared: Prepared, **fields: object) -> Run:
    """A finished run of 18 images and 60 s, 20 of them for features."""
    run = Run(str(folder))
    run.write_environment(data_fingerprint=prepared.fingerprint, workers="1", gpu=False, **fields)
    run.write_config(config)
    epochs = config.train.epochs
    content = {"run": run.root, "epochs": epochs, "rows": {"train": 18}, "seconds": 60.0, "time": {"features": 20.0}}
    run.write_result(content)
    return run


def test_the_plan_line_knows_similar_runs(tiny_set: Prepared, tmp_path: Path):
    config, run = lite_config(epochs=4), Run(str(tmp_path / "new"))

    def expected(config: Config = config, images: int = 18) -> float | None:
        known = similar_runs.expectation(run, config, tiny_set, images, "1", False)
        return known and known.seconds

    assert expected() is None
    similar_run(tmp_path / "a", replace(config, seed=7), tiny_set)
    assert expected() == 40.0, "the features are cached"
    assert expected(images=27) == 60.0 and expected(images=60) is None
    assert expected(lite_config(epochs=8, optim__lr=1.0)) == 80.0
    assert expected(lite_config(epochs=4, train__batch_size=4)) is None
    similar_run(tmp_path / "b", config, tiny_set, host="another")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "result.json").write_text("{")
    assert expected() == 40.0, "other machines and damaged files are passed over"


def test_features_that_are_not_cached_cost_again(tiny_set: Prepared, tmp_path: Path):
    frozen = {"model__trainable": ["head"], "augment__flip": False, "augment__rotation": 0, "augment__shift": 0}
    config, run = lite_config(epochs=4, augment__zoom=[1, 1], **frozen), Run(str(tmp_path / "new"))
    other = SimpleNamespace(fingerprint="other images")
    similar_run(tmp_path / "a", config, other)  # type: ignore[arg-type]
    known = similar_runs.expectation(run, config, tiny_set, 18, "1", False)
    assert known and known.seconds == 60.0 and known.run == str(tmp_path / "a")


def test_stored_features_that_are_gone_cost_again(tiny_set: Prepared, tmp_path: Path):
    frozen = {"model__trainable": ["head"], "augment__flip": False, "augment__rotation": 0, "augment__shift": 0}
    config = lite_config(epochs=4, augment__zoom=[1, 1], **frozen)
    prepared = replace(tiny_set, root=str(tmp_path / "set"))
    Path(prepared.root).mkdir()
    similar_run(tmp_path / "a", config, prepared)
    trials = [
        (Run(str(tmp_path / "c" / "trials" / str(seed))), replace(config, seed=seed), prepared) for seed in (0, 1)
    ]

    def seconds(concurrent: int) -> float | None:
        known = similar_runs.comparison_expectation(trials, str(tmp_path / "c"), "1", False, concurrent)
        return known and known.seconds

    assert seconds(1) == 60.0 + 40.0, "the second trial finds those of the first"
    Path(prepared.root, "features-1.npz").touch()
    assert seconds(1) == 80.0 and seconds(2) == 40.0
    trials.append((trials[0][0], lite_config(epochs=4, train__batch_size=4), prepared))
    assert seconds(1) is None, "no similar run for one of them"


@pytest.mark.ray
def test_a_cluster_that_runs_is_asked_and_measures(ray_local: None, monkeypatch: pytest.MonkeyPatch):
    def process_and_square(number: int) -> tuple[int, int]:
        return os.getpid(), number**2

    machine = find_machine(1)
    assert machine.is_cluster and machine.text == "1 node, 4 CPUs"
    assert machine.nodes[0].store >= 512 * 2**20 and machine.nodes[0].memory > machine.nodes[0].store
    here = os.getpid()
    assert on_worker(machine, False, process_and_square, 3) == (here, 9), "our own Ray runs on this machine"
    monkeypatch.delenv(OWN_RAY_VARIABLE)
    process, square = on_worker(machine, False, process_and_square, 3)
    assert square == 9 and process != here
