"""Comparisons on Ray Tune: trials end to end, failures, Ctrl-C and resume, ASHA, checks, console output."""

import io
import os
import re
import signal
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers import LITE, lite_config, ray_processes, remaining, spec_of, tiny_prepared, train_workers, without_times
from rich.console import Console

from animalclf.errors import UserError
from animalclf.rows import EpochEnd, EpochRow, HeadRow, PhaseProgress, StartupEvent, TrialEntry, TrialProgress
from animalclf.runs import Run
from animalclf.training import launch
from animalclf.tuning.comparison_dir import ComparedData, StoredComparison, known_trials
from animalclf.tuning.live import LiveTable
from animalclf.tuning.spec_parsing import build_spec

EPOCHS = 12  # of the interrupted trials: enough that they do not end before the interrupt reaches their workers
SMALL = {**LITE, "train.batch_size": 16, "train.precision": "fp32"}
SLOW = {**SMALL, "optim.lr": 1e-4}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return tiny_prepared(tmp_path_factory.mktemp("prepared"), (21, 16, 8))


@pytest.fixture
def comparing(ray_local, monkeypatch):
    """`compare`, and a list of the prepared sets that it caches."""
    from animalclf.tuning import compare

    cached, cache_images = [], compare.cache_images

    def counted_cache(prepared, in_memory):
        cached.append(prepared.root)
        return cache_images(prepared, in_memory)

    monkeypatch.setattr(compare, "cache_images", counted_cache)
    return compare.compare, cached


def check_refusals(compare, prepared, spec, out, tmp_path):
    """Other images and other settings cannot continue the comparison in `out`."""
    other_images = tiny_prepared(tmp_path / "other", (21, 16, 9))
    with pytest.raises(UserError, match=r"other images.*train: 33 -> 34"):
        compare(spec, other_images.root, out, resume=True)
    same_names = tiny_prepared(tmp_path / "same", (21, 16, 8), seed=5)
    with pytest.raises(UserError, match=r"other images.*tiny-0 -> tiny-5"):
        compare(spec, same_names.root, out, resume=True)
    with pytest.raises(UserError, match=r"big_cnn-s0: has another configuration.*train.epochs: 12 -> 5"):
        compare(spec_of(recipes="big_cnn", overrides=SLOW | {"train.epochs": 5}), prepared.root, out, resume=True)


def epochs_of(events):
    """The numbers of the epochs that end in these progress events."""
    return [event.row.epoch for event in events if isinstance(event, EpochEnd)]


def check_diverged(run, entry, events):
    """The trial failed in its first epoch, without a restart, which would not help."""
    assert entry.state == "failed" and re.search(r"diverged in epoch 1 .* lower optim\.lr", entry.reason)
    assert not epochs_of(events) and not run.has_checkpoint("last")
    starts = [event for event in events if isinstance(event, StartupEvent) and event.phase == "workers"]
    assert len(starts) == 1


def check_undisturbed(run, events, prepared, tmp_path):
    """The killed worker cost the running epoch at most, and the run ended as one without a kill."""
    trained = epochs_of(events)
    assert trained == sorted(trained) and len(trained) <= EPOCHS + 1
    undisturbed = Run(str(tmp_path / "undisturbed"))
    launch.train_local(lite_config(EPOCHS), prepared, undisturbed, lambda event: None)
    for row, expected in zip(run.metrics(), undisturbed.metrics(), strict=True):
        assert without_times(row) == pytest.approx(without_times(expected), rel=1e-3)


@pytest.mark.ray
def test_failing_trials_then_an_added_seed_then_ctrl_c_then_resume(tmp_path, comparing, prepared, capsys):
    compare, cached = comparing
    out = str(tmp_path / "comparison")
    broken = {"recipe": "big_cnn", "name": "broken", "set": {"optim.name": "sgd", "optim.lr": 1e30}}
    settings = SLOW | {"train.epochs": EPOCHS}
    killed, states, events = [], [], {"broken-s0": [], "big_cnn-s0": [], "big_cnn-s1": []}

    def show(event):
        if not isinstance(event, TrialProgress):
            states.append((event.slug, event.state))
            return
        events[event.trial].append(event.event)
        if event.trial == "big_cnn-s0" and getattr(event.event, "epoch", 0) >= 2 and not killed:
            killed.extend(train_workers())
            for worker in killed:
                os.kill(worker, signal.SIGKILL)

    spec = build_spec({"recipes": [broken, "big_cnn"], "set": settings})
    summary = compare(spec, prepared.root, out, show=show)
    good, bad = Run(f"{out}/trials/big_cnn-s0"), Run(f"{out}/trials/broken-s0")
    by_slug = {trial.slug: trial for trial in summary.trials}
    check_diverged(bad, by_slug["broken-s0"], events["broken-s0"])
    assert by_slug["big_cnn-s0"].state == "finished" and by_slug["big_cnn-s0"].epochs == EPOCHS
    assert summary.runs == [good.root] and good.result().recipe == "big_cnn" and not bad.finished()
    assert killed, "no training worker was found to kill"
    epochs = list(range(1, EPOCHS + 1))
    assert [row.epoch for row in good.metrics()] == epochs
    check_undisturbed(good, events["big_cnn-s0"], prepared, tmp_path)
    assert cached == [prepared.root], "one image cache, shared by all trials"
    for change in (("broken-s0", "running"), ("broken-s0", "failed"), ("big_cnn-s0", "finished")):
        assert states.count(change) == 1
    assert "one at a time" in capsys.readouterr().err

    with pytest.raises(UserError, match="--resume"):
        compare(spec, prepared.root, out)
    check_refusals(compare, prepared, spec, out, tmp_path)

    states.clear()
    good_result = good.result()
    two_seeds = spec_of(recipes="big_cnn", overrides=SLOW | {"train.epochs": EPOCHS}, seeds="2")

    def interrupt(event):
        show(event)
        if isinstance(event, TrialProgress) and isinstance(event.event, EpochEnd):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(two_seeds, prepared.root, out, resume=True, show=interrupt)
    assert [slug for slug, state in states if state == "running"] == ["big_cnn-s1"], "only the new trial runs"
    added = Run(f"{out}/trials/big_cnn-s1")
    assert not remaining(train_workers), "the interrupted trial's workers still run"
    history = added.metrics()  # read after the worker ended, which may have finished another epoch
    assert 1 <= len(history) < EPOCHS and not added.finished()

    events["big_cnn-s1"].clear()
    resumed = compare(two_seeds, prepared.root, out, resume=True, show=show)
    assert resumed.runs == [good.root, added.root] and good.result() == good_result
    assert [trial.state for trial in resumed.trials] == ["failed", "finished", "finished"]
    # The worker may have ended between the checkpoint of an epoch and its line of the history.
    first, *_ = repeated = epochs_of(events["big_cnn-s1"])
    assert first - 1 in (len(history), len(history) + 1), "finished epochs are not repeated"
    assert repeated == epochs[first - 1 :]
    assert added.metrics()[: len(history)] == history


@pytest.mark.ray
def test_asha_stops_a_bad_trial_and_frees_its_resources(tmp_path, comparing, prepared):
    import ray

    compare, _ = comparing
    out = str(tmp_path / "comparison")
    settings = SMALL | {"train.epochs": EPOCHS, "train.monitor": "loss"}
    spec = spec_of(recipes="big_cnn", overrides=settings, grid=["optim.lr=1e-4,0.3"], schedule="asha")
    summary = compare(spec, prepared.root, out)
    good, bad = summary.trials
    assert (good.state, good.epochs) == ("finished", EPOCHS)
    assert bad.state == "stopped" and bad.epochs < EPOCHS and "ASHA" in bad.reason
    assert summary.runs == [good.run] and not Run(bad.run).finished() and Run(bad.run).config().optim.lr == 0.3
    assert not remaining(train_workers), "the stopped trial's workers still run"
    assert remaining(lambda: ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0)) == 0
    resumed = compare(spec, prepared.root, out, resume=True)
    assert [(trial.state, trial.epochs) for trial in resumed.trials] == [("finished", EPOCHS), ("stopped", bad.epochs)]


@pytest.mark.ray
def test_a_killed_trial_fails_and_frees_its_resources(tmp_path, comparing, prepared):
    """As when the node is out of memory: the process of a trial dies, and with it the controller of its training."""
    import ray

    compare, _ = comparing
    killed, workers = [], []

    def show(event):
        if isinstance(event, TrialProgress) and isinstance(event.event, EpochEnd) and event.trial not in killed:
            killed.append(event.trial)
            workers.append(len(train_workers()))
            for process in ray_processes("ray::ImplicitFunc"):
                os.kill(process, signal.SIGKILL)

    spec = spec_of(recipes="big_cnn", seeds="2", overrides=SLOW | {"train.epochs": 1000})
    entries = compare(spec, prepared.root, str(tmp_path / "comparison"), show=show).trials
    assert len(killed) == 2 and all(entry.state == "failed" and "its process died" in entry.reason for entry in entries)
    assert workers == [1, 1], "the first trial's worker runs beside the second's"
    assert not remaining(train_workers), "the killed trial's workers still run"
    assert remaining(lambda: ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0)) == 0


@pytest.mark.ray
def test_invalid_comparisons_are_refused_before_any_training(tmp_path, comparing, prepared, monkeypatch):
    compare, _ = comparing
    out = str(tmp_path / "comparison")
    spec = spec_of(recipes="big_cnn", overrides=SLOW)
    with pytest.raises(UserError, match="no comparison to resume"):
        compare(spec, prepared.root, out, resume=True)
    with pytest.raises(UserError, match=r"--workers 20: the cluster has 4 CPUs"):
        compare(spec, prepared.root, out, workers=20)
    with pytest.raises(UserError, match="stored at 40 px"):
        compare(spec_of(recipes="big_cnn"), prepared.root, out)
    unvalidated = tiny_prepared(tmp_path / "unvalidated", (21, 16, 8), val=0)
    with pytest.raises(UserError, match="balanced_accuracy is not computed"):
        compare(spec, unvalidated.root, out)
    monkeypatch.setitem(sys.modules, "optuna", None)
    search = spec_of(
        recipes="big_cnn", overrides=SMALL, search=["optim.lr=log:1e-5:1e-2"], samples=2, searcher="optuna"
    )
    with pytest.raises(UserError, match=r"animalclf\[optuna\]"):
        compare(search, prepared.root, out)
    assert not os.path.exists(f"{out}/comparison.yaml"), "a refused comparison must not block the next one"
    assert not os.path.exists(f"{out}/running.json")


def test_seeds_share_the_limited_images(tmp_path, monkeypatch):
    from animalclf.tuning import compare

    plans, sampling_plan = [], compare.sampling_plan
    monkeypatch.setattr(compare, "sampling_plan", lambda *of: (plans.append(of), sampling_plan(*of))[1])
    limited = tiny_prepared(tmp_path / "set", (21, 16, 8))
    spec = spec_of(recipes="big_cnn", overrides=SMALL | {"data.limit": 20}, seeds="3")
    data = compare._compared_data(spec, [limited] * 3, 1)
    assert len(plans) == 1 and data.classes == 3


@pytest.mark.ray
def test_trials_at_a_time(ray_local, monkeypatch):
    import ray

    from animalclf.tuning.compare import concurrency

    assert concurrency(1, False) == 1, "a CPU worker uses all cores of its node"
    assert concurrency(1, False, requested=2) == 2 and concurrency(1, False, requested=9) == 2
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16.0, "GPU": 8.0})
    assert [concurrency(workers, True) for workers in (1, 2, 3, 8)] == [8, 4, 2, 1]
    assert concurrency(1, True, requested=3) == 3
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 4}}] * 4)
    assert [concurrency(workers, False) for workers in (1, 2, 4)] == [4, 2, 1]


def test_the_reason_of_a_failure_is_one_line():
    import ray

    from animalclf.tuning.trials import failure_reason

    assert failure_reason(UserError("optim.lr: too high")) == "optim.lr: too high"
    assert failure_reason(ValueError()) == "ValueError" and failure_reason(OSError("disk full")) == "OSError: disk full"
    nested = RuntimeError("Training failed")
    nested.worker_failures = {0: RuntimeError("Traceback ...\n  File x\nValueError: wrong shape\n")}
    assert failure_reason(nested) == "ValueError: wrong shape"
    dead = RuntimeError("A worker health check failed.")
    dead.health_check_failure = ray.exceptions.OutOfMemoryError("low on memory\nSee the documentation")
    nested.worker_failures = {0: dead}
    assert re.fullmatch(r"the node of a worker is out of memory: free .*--max-concurrent.*", failure_reason(nested))


def test_console_output_is_a_line_an_epoch_or_a_live_table():
    trials = spec_of(recipes="big_cnn", overrides={"train.epochs": 3}, seeds="30").trials
    row = EpochRow(1, seconds=2.0, images_per_s=50.0, train_loss=1.0, val={"balanced_accuracy": 0.4})
    entry = TrialEntry(slug="big_cnn-s0", name="big_cnn", seed=0, run="")
    for terminal in (False, True):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=terminal, width=100, height=20, highlight=False)
        table = LiveTable(trials, console)
        for trial in trials:
            table.show(replace(entry, slug=trial.slug, seed=trial.config.seed))
        table.show(replace(entry, state="running"))
        for done in (5, 6):
            table.show(TrialProgress("big_cnn-s0", PhaseProgress("train", done, 20, 0.5, epoch=1)))
        table.show(TrialProgress("big_cnn-s0", EpochEnd(row)))
        table.show(TrialProgress("big_cnn-s0", EpochEnd(row)))  # repeated after a fault
        table.show(TrialProgress("big_cnn-s0", PhaseProgress("train", 10, 20, 0.1, epoch=2)))
        assert table.lines["big_cnn-s0"].left == pytest.approx(3.0)
        table.show(replace(entry, slug="big_cnn-s1", state="failed", seed=1, reason="[no] lr"))
        text = screen.getvalue()
        assert text.count("epoch 1/3 | train loss") == 1 and "val balanced accuracy 0.4000, best 0.4000" in text
        assert text.count("images | ") == 1
        assert "big_cnn, seed 0: epoch 1/3 training, 5 of 20 images | 10 images/s" in text
        assert "big_cnn, seed 1: failed after 0 epochs: [no] lr" in text
        console.print(table.table())
        table_text = screen.getvalue()[len(text) :]
        assert all(part in table_text for part in ("training", "1/3", "0.4000", "and 18 more"))
        assert table_text.count("\n") <= 20


def test_fitted_heads_have_no_speed_and_no_epochs():
    screen = io.StringIO()
    table = LiveTable(spec_of(recipes="quick").trials, Console(file=screen, width=100, highlight=False))
    table.show(TrialEntry(slug="quick-s0", name="quick", seed=0, run="", state="running"))
    table.show(TrialProgress("quick-s0", PhaseProgress("heads", 0, 20, 0.0)))
    head = HeadRow("logistic", {}, 1.0, 0.5)
    table.show(TrialProgress("quick-s0", EpochEnd(EpochRow(1, seconds=2.0, images_per_s=50.0, heads=[head]))))
    table.show(TrialEntry(slug="quick-s0", name="quick", seed=0, run="", state="finished", epochs=1, best=0.5))
    lines = screen.getvalue().splitlines()
    assert lines == [
        "quick, seed 0: fitting the heads, 20 images",
        "quick, seed 0: heads fitted | inner folds loss 0.0000",
        "quick, seed 0: finished, best balanced accuracy 0.5000",
    ]


def test_the_plan_line_has_the_memory_of_each_prepared_set(monkeypatch):
    from animalclf.tuning import compare

    monkeypatch.setattr(compare, "cache_images", lambda *_: None)
    monkeypatch.setattr(compare, "choose_cache", lambda _, prepared, used: (True, f"images {prepared.root} in memory"))
    trial = spec_of(recipes="quick").trials[0]
    small, large = (SimpleNamespace(root=root, pixel_bytes=1) for root in ("1 GB", "2 GB"))
    assert compare._cache([(trial, small), (trial, small)])[1] == ", images 1 GB in memory"
    text = ", images of 2 prepared sets: 1 GB in memory, 2 GB in memory"
    assert compare._cache([(trial, small), (trial, large)])[1] == text


def test_a_finished_trial_without_its_run_folder_waits(tmp_path):
    spec = spec_of(recipes="quick")
    entry = TrialEntry(slug=spec.trials[0].slug, name="quick", seed=0, run="", state="finished")
    images = ComparedData(source="", classes=2, train=2, val=2, test=0, listing_hash="", prepared={})
    stored = StoredComparison(images, {}, [entry])
    assert known_trials(spec, str(tmp_path), stored)[entry.slug].state == "waiting"
