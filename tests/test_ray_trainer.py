"""Training on Ray Train: ranks, failures, checks before the start, Ctrl-C."""

import json
import re
import signal
import subprocess
import threading
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import ray
from helpers import LITE, after_its_first_epoch, lite_config, tiny_config, tiny_prepared, train_command, train_workers

from animalclf import config as configuration
from animalclf.cli import main
from animalclf.errors import UserError
from animalclf.rows import EpochEnd, EpochRow, StartupEvent
from animalclf.runs import Run
from animalclf.training import checks, launch, ray_trainer, resources, reused_worker, worker
from animalclf.training.progress import open_mailbox
from animalclf.training.resources import Workers, choose_cache, preflight
from animalclf.training.task import Start

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return tiny_prepared(tmp_path_factory.mktemp("prepared"), (21, 16, 8))


def on_ray(folder, config, prepared, workers, show=lambda event: None):
    run = checks.lock_run(str(folder), config, resume=False)
    run.write_config(config)
    return run, ray_trainer.train_on_ray(config, prepared, run, Workers.fixed(workers), show)


@pytest.mark.parametrize("first_is_due", [True, False])
def test_ranks_report_together_by_the_clock_of_rank_0(monkeypatch, first_is_due):
    """A rank that reports alone waits for the others without end."""
    seconds, reported = [0.0], []
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    monkeypatch.setattr(worker, "all_gather", lambda due: [first_is_due, due])
    monkeypatch.setattr(worker.ray.train, "report", reported.append)
    report = worker.ThrottledReports()
    for number, seconds[0] in enumerate((0.1, worker.REPORT_SECONDS + 1)):  # by this rank's clock not due, then due
        report(EpochRow(number))
    assert len(reported) == (2 if first_is_due else 0)


def test_two_workers_see_every_row_once_and_agree_with_one_process(tmp_path, ray_local, prepared):
    config, events = lite_config(1), []
    run, result = on_ray(tmp_path / "ray", config, prepared, 2, events.append)
    (row,) = run.metrics()
    assert (row.train_rows, row.val_rows) == (33, 12) and result.workers == 2
    assert list(run.predictions("val")["path"]) == list(prepared.manifest["path"][prepared.rows("val")])
    assert any(isinstance(event, EpochEnd) for event in events)
    assert any(getattr(event, "phase", "") == "train" for event in events)
    local = Run(str(tmp_path / "local"))
    launch.train_local(config, prepared, local, lambda event: None)
    (local_row,) = local.metrics()
    # The global batches are the same; BatchNorm's statistics are of half a batch on each worker.
    assert row.train_loss == pytest.approx(local_row.train_loss, rel=0.25)


def test_two_workers_fit_the_heads_that_one_process_fits(tmp_path, ray_local):
    prepared = tiny_prepared(tmp_path / "prepared", (20, 16, 12))
    config = configuration.load(
        "quick", {**LITE, "model.weights": "none", "data.resize": "squash", "train.precision": "fp32"}
    )
    single_process = launch.train_local(config, prepared, Run(str(tmp_path / "one")), lambda event: None)
    _, two = on_ray(tmp_path / "two", config, prepared, 2)
    assert [(head.kind, head.settings) for head in single_process.heads] == [
        (head.kind, head.settings) for head in two.heads
    ]
    assert two.workers == 2 and two.val["loss"] == pytest.approx(single_process.val["loss"], abs=1e-3)


def test_two_workers_cross_validate_as_one_process(tmp_path, ray_local):
    """The probabilities of a fold are of both ranks' images, and every rank goes on to the next fold."""
    prepared = tiny_prepared(tmp_path / "prepared", (12, 9, 7))
    small = {**LITE, "model.weights": "none", "data.resize": "squash", "train.precision": "fp32", "train.folds": 2}
    config = configuration.load("quick", small)
    single_process = launch.train_local(config, prepared, Run(str(tmp_path / "one")), lambda event: None)
    run, two = on_ray(tmp_path / "two", config, prepared, 2)
    assert two.workers == 2 and two.val.rows == 28 and two.rows == {"train": 28, "val": 0, "test": 0}
    assert [fold.rows for fold in two.folds] == [fold.rows for fold in single_process.folds]
    assert two.val["loss"] == pytest.approx(single_process.val["loss"], abs=1e-3)
    assert two.temperature == pytest.approx(single_process.temperature, rel=1e-2)
    assert not run.predictions("val")["path"].duplicated().any()


def test_two_workers_share_the_features_of_a_frozen_base(tmp_path, ray_local):
    small = tiny_prepared(tmp_path / "prepared", (21, 16, 8))
    small_model = {"model.weights": "none", "model.input_size": 32, "data.stored_size": 40}
    config = configuration.load(
        "vgg16_pooled", small_model | {"train.epochs": 3, "train.batch_size": 8, "train.precision": "fp32"}
    )
    run, result = on_ray(tmp_path / "ray", config, small, 2)
    local = Run(str(tmp_path / "local"))
    local_result = launch.train_local(config, small, local, lambda event: None)
    # Without BatchNorm two workers compute what one process does.
    for row, expected in zip(run.metrics(), local.metrics(), strict=True):
        assert row.train_loss == pytest.approx(expected.train_loss, rel=1e-3)
        assert row.val["loss"] == pytest.approx(expected.val["loss"], rel=1e-3)
    assert result.metrics["balanced_accuracy"] == pytest.approx(local_result.metrics["balanced_accuracy"])


def test_impossible_requests_are_refused_before_the_start(ray_local, tmp_path):
    with pytest.raises(UserError, match=r"--workers 50: the cluster has 4 CPUs"):
        preflight(Workers.fixed(50), [])
    with pytest.raises(UserError, match=r"the cluster has 0 GPUs"):
        preflight(Workers.fixed(1, use_gpu=True), [])
    with pytest.raises(UserError, match=r"--workers 7:9: the cluster has 4 CPUs"):
        preflight(Workers(7, 9), [])
    for wrong in ("-1", "two", "3:2", "0:2", "1:2:3"):
        with pytest.raises(UserError, match=r"write a number.*--workers 2:8"):
            Workers.parse(wrong)
    assert preflight(Workers.parse("2"), [str(tmp_path)]) == "1 node, 4 CPUs"
    assert preflight(Workers.parse("2:8"), []) == "1 node, 4 CPUs"


def test_a_call_in_a_ray_task_leaves_the_cpus_that_the_task_holds(ray_local, monkeypatch):
    assert ray.get(ray.remote(num_cpus=2)(resources._held_cpus).remote()) == 2 and resources._held_cpus() == 0
    monkeypatch.setattr(resources, "_held_cpus", lambda: 2.0)
    with pytest.raises(UserError, match=r"4 CPUs .*task or actor .*holds 2, .*need 3; request fewer"):
        preflight(Workers.fixed(2), [])
    assert preflight(Workers.fixed(1), []) == "1 node, 4 CPUs"
    monkeypatch.setattr(resources, "_held_cpus", lambda: 3.0)
    with pytest.raises(UserError, match=r"holds 3, .*need 2; use a Ray with at least 5 CPUs"):
        preflight(Workers.fixed(1), [])


@pytest.mark.parametrize(
    "nodes", [[], [2], [8], [1, 1], [2, 2], [3, 3], [2, 8], [3, 8], [2, 6], [4, 10], [4, 4, 4], [2, 3, 5]]
)
def test_elastic_workers_leave_room_for_an_input_task_on_every_node(nodes, monkeypatch):
    monkeypatch.setattr(resources, "_cpus_of_nodes", lambda: nodes)
    scaling, task_cpus = resources.scaling(Workers(1, 99)), resources.input_cpus(Workers(1, 99))
    worker_cpus = scaling.resources_per_worker["CPU"]
    assert 0 < task_cpus <= 1
    if len(nodes) > 1:  # any of them may be lost; the smallest has room for one worker
        assert all(cpus % worker_cpus >= task_cpus for cpus in nodes) and int(min(nodes) / worker_cpus) == 1
    elif nodes:
        assert scaling.max_workers * worker_cpus + task_cpus <= nodes[0]
    assert resources.input_cpus(Workers.fixed(2)) == 1


@pytest.mark.parametrize(
    ("workers", "cpus", "message"),
    [
        (
            1,
            1,
            "the cluster has 1 CPU (at most), workers and one input task need 2; use a Ray with at least 2 CPUs, or",
        ),
        (3, 1, "need 4; use a Ray with at least 2 CPUs, or train without Ray: --local"),
        (3, 2, "the cluster has 2 CPUs (at most), workers and one input task need 4; request fewer workers"),
    ],
)
def test_too_few_cpus_have_a_remedy_that_helps(workers, cpus, message):
    with pytest.raises(UserError) as caught:
        resources._check_room(Workers.fixed(workers), cpus, 0)
    assert message in str(caught.value)


def test_more_elastic_workers_than_the_cluster_has_room_for_are_refused(ray_local, monkeypatch):
    monkeypatch.setattr(resources, "_cpus_of_nodes", lambda: [2, 2])
    with pytest.raises(UserError, match=r"--workers 3:4: .* room for 2 elastic workers"):
        preflight(Workers(3, 4), [])


def test_images_that_do_not_fit_into_memory_are_read_from_disk(ray_local, prepared):
    large = replace(prepared, info={**prepared.info, "shards": [{"file": "shard-00000.parquet", "rows": 10_000_000}]})
    assert choose_cache("auto", prepared)[0] and not choose_cache("disk", prepared)[0]
    in_memory, text = choose_cache("auto", large)
    assert not in_memory and re.fullmatch(r"images \S+ GB from disk \(memory has room for \S+ GB\)", text)
    with pytest.raises(UserError, match=r"train\.cache=memory: .* take .* GB.*data\.stored_size"):
        choose_cache("memory", large)


def test_a_prepared_set_that_does_not_fit_the_recipe_is_refused(prepared):
    with pytest.raises(UserError, match=r"stored at 40 px.*--recipe big_cnn"):
        checks.open_or_prepare(prepared.root, tiny_config(1, data__stored_size=128, model__input_size=128), "")
    with pytest.raises(UserError, match=r"data\.val: 0\.2 -> 0\.3"):
        checks.open_or_prepare(prepared.root, lite_config(1, data__val=0.3), "", ["data.val"])
    opened, config = checks.open_or_prepare(prepared.root, lite_config(1), "")
    assert opened.fingerprint == prepared.fingerprint and config.data.stored_size == 40


def test_the_command_ctrl_c_and_resume(tmp_path, prepared):
    """`animalclf train` is interrupted after its first epoch, then resumed: exit codes, history and JSON."""

    def command(epochs, *flags):
        return train_command(prepared, tmp_path / "run", epochs, "--local", "--json", *flags)

    process = after_its_first_epoch(command(100), tmp_path / "run")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "--resume" in err and out == ""
    run = Run(str(tmp_path / "run"))
    finished = len(run.metrics())
    assert 1 <= finished < 100 and not run.finished()
    repeated = subprocess.run(command(100), capture_output=True, text=True)
    assert repeated.returncode == 2 and "--resume" in repeated.stderr
    resumed = subprocess.run(command(finished + 2, "--resume"), capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    result = json.loads(resumed.stdout.splitlines()[-1])
    assert result["epochs"] == finished + 2 and np.isfinite(result["balanced_accuracy"])
    assert [row.epoch for row in run.metrics()] == list(range(1, finished + 3))


def test_a_resume_on_other_images_is_refused(tmp_path, prepared):
    config = lite_config(1)
    run = checks.lock_run(str(tmp_path / "run"), config, resume=False)
    launch.start_training(config, prepared, run, Workers.parse("0"), True, True, lambda event: None)
    other_images = tiny_prepared(tmp_path / "other", (21, 16, 8), seed=9)
    with pytest.raises(UserError, match=r"trained on other images.*tiny-0.*tiny-9"):
        launch.start_training(config, other_images, run, Workers.parse("0"), True, True, lambda event: None)


def test_wrong_requests_exit_with_2(tmp_path, prepared, capsys):
    assert main(["train", "--data", prepared.root, "--recipe", "big_cn", "--local"]) == 2
    assert "did you mean 'big_cnn'" in capsys.readouterr().err
    assert main(["train", "--data", prepared.root, "--resume", "--local"]) == 2
    assert "--resume needs --out" in capsys.readouterr().err.replace("\n", " ")


def test_a_folder_of_images_is_listed_once(tmp_path, ray_local, monkeypatch):
    from PIL import Image

    from animalclf.prepare import sources

    generator, listed, find = np.random.default_rng(0), [], sources.find
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(generator.integers(0, 256, (40, 40, 3), np.uint8)).save(
                tmp_path / "images" / name / f"{number}.png"
            )
    monkeypatch.setattr(sources, "find", lambda *arguments: (listed.append(arguments[0]), find(*arguments))[1])
    config = tiny_config(1, model__input_size=32, data__stored_size=32, model__name="resnet18")
    for _ in range(2):  # prepared, then reused
        prepared, _ = checks.open_or_prepare(str(tmp_path / "images"), config, str(tmp_path / "prepared"))
        assert len(prepared.manifest) == 12
    assert listed == [str(tmp_path / "images")] * 2


def test_every_error_of_training_or_reporting_is_raised_and_stops_the_workers(
    tmp_path, ray_local, prepared, monkeypatch
):
    """Also errors that Ray does not document: the command must not hang or leave workers behind."""
    stopped = threading.Event()

    class Trainer:
        def __init__(self, task, fail):
            self.task, self.fail = task, fail

        def fit(self):
            if self.fail:
                raise LookupError("no such callback")
            ray.get(self.task.mailbox.post.remote(StartupEvent("workers")))
            while not ray.get(self.task.mailbox.stopped.remote()):
                time.sleep(0.1)
            stopped.set()
            raise RuntimeError("its workers are gone")

    def full_disk(event):
        raise UserError("the disk is full")

    for fail, error in ((True, LookupError), (False, UserError)):
        monkeypatch.setattr(ray_trainer, "_trainer", lambda task, workers, name, fail=fail: Trainer(task, fail))
        with pytest.raises(error):
            ray_trainer.train_on_ray(tiny_config(1), prepared, Run(str(tmp_path / "run")), Workers.fixed(1), full_disk)
    assert stopped.is_set()


def test_the_next_training_of_a_process_reuses_its_worker(tmp_path, ray_local, prepared, monkeypatch):
    """It checks the model before it trains. The run folder is written after that."""
    monkeypatch.setattr(reused_worker, "_idle", None)  # afterwards, too, so that no CPU stays reserved
    workers, begun, results = [], [], []

    def train(name, config):
        check = partial(launch.check_model, config, 3, load_weights=False)
        start = Start(check=check, begin=lambda: begun.append(name))
        run, one = Run(str(tmp_path / name)), Workers.fixed(1, reused=True)
        results.append(
            ray_trainer.train_on_ray(config, prepared, run, one, lambda event: workers.append(train_workers()), start)
        )
        assert len(run.metrics()) == 1 and run.finished()

    train("first", lite_config(1))
    with pytest.raises(UserError, match="no layer is called 'neck'"):
        train("wrong", lite_config(1, model__trainable=["neck"]))
    train("second", lite_config(1))
    assert len({tuple(pids) for pids in workers}) == 1 and len(workers[0]) == 1
    assert begun == ["first", "second"] and results[0].val == results[1].val


def test_a_mailbox_whose_process_is_killed_is_started_again(ray_local):
    box = open_mailbox()
    group = ray.util.placement_group([{"CPU": 1}])
    ray.get([box.enter.remote(group), box.stop_trials.remote({"a"})])
    ray.kill(box, no_restart=False)
    while ray.get(box.is_to_stop.remote("a")):  # until it is another process
        time.sleep(0.05)
    ray.get(box.post.remote(StartupEvent("workers"), group))  # an event of a worker names its group again
    assert ray.get(box.take.remote()) == (False, [StartupEvent("workers")])
    assert ray.get(box.stop.remote()).id == group.id and ray.get(box.stopped.remote())
    ray.util.remove_placement_group(group)
