"""The lock of a folder, what a resume may change, and where a moved run looks for its prepared set."""

import errno
import json
import os
import socket
import time

import numpy as np
import psutil
import pytest
import yaml
from helpers import held_by_another_process, tiny_config, tiny_prepared
from run_folders import CLASSES, finished_run

from animalclf import folder_lock
from animalclf.config.keys import keys
from animalclf.config.parsing import LAST_KEY
from animalclf.data import run_images
from animalclf.data.sampler import sampling_plan
from animalclf.errors import UserError
from animalclf.folder_lock import STALE_SECONDS, LockHolder
from animalclf.inference.validation import validation_predictions
from animalclf.runs import Run, open_run
from animalclf.training import checkpoint, checks
from animalclf.utils import storage
from animalclf.utils.writable import check_writable


def write_lock(run: Run, host: str, pid: int, age: float, process_started: float = 0.0) -> None:
    os.makedirs(run.root, exist_ok=True)
    holder = LockHolder(host, pid, time.time() - age, process_started)
    with open(run.url("running.json"), "w") as file:
        json.dump(holder.to_dict(), file)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("comparison.yaml", "is a comparison; name one of its runs, the folders in its trials/"),
        ("dataset.json", "is a prepared set, not a run"),
        ("leaderboard.json", "is a folder of ensembles"),
        ("result.json", "is an ensemble"),
        ("other.json", "no run in this folder"),
    ],
)
def test_a_folder_that_is_no_run_is_named(file, kind, tmp_path):
    (tmp_path / file).touch()
    with pytest.raises(UserError, match=kind):
        open_run(str(tmp_path))
    if file != "other.json":
        with pytest.raises(UserError, match=kind):
            checkpoint.load_model(str(tmp_path))


@pytest.mark.parametrize("age, locked", [(0, True), (STALE_SECONDS - 20, True), (STALE_SECONDS + 20, False)])
def test_a_lock_of_another_machine_counts_for_two_minutes(tmp_path, age, locked):
    assert STALE_SECONDS == 120  # docs/faults.md says two minutes
    run = Run(str(tmp_path / "run"))
    write_lock(run, "elsewhere", 1, age)
    if locked:
        with pytest.raises(UserError, match="in use by process 1 on elsewhere"):
            run.lock()
    else:
        run.lock()
        assert json.loads((tmp_path / "run" / "running.json").read_text())["pid"] == os.getpid()


def test_a_folder_that_was_only_locked_is_removed(tmp_path):
    for folder in ("run", "new/comparisons/run"):
        run = Run(str(tmp_path / folder))
        run.lock()
        run.lock()  # renewed
        run.unlock()
        assert not list(tmp_path.iterdir())
    run = Run(str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    run.lock()
    run.unlock()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine"]


def test_a_lock_of_this_machine_counts_while_its_process_runs(tmp_path):
    run, parent = Run(str(tmp_path / "run")), psutil.Process(os.getppid())
    write_lock(run, socket.gethostname(), parent.pid, 10 * STALE_SECONDS, parent.create_time())
    with pytest.raises(UserError, match=f"in use by process {parent.pid}"):
        run.lock()
    write_lock(run, socket.gethostname(), parent.pid, 0, parent.create_time() - 1000)  # its number was used again
    run.lock()


@pytest.mark.parametrize(
    "key, value",
    [("profile", True), ("compile", True), ("compile_from", 5), ("cuda_graphs", False), ("batch_size", 7)],
)
def test_a_resume_may_change_how_a_step_is_executed_and_not_what_it_computes(key, value):
    changes = checks.config_changes(tiny_config(2), tiny_config(2, **{f"train__{key}": value}))
    assert [change.partition(":")[0] for change in changes] == (["train.batch_size"] if key == "batch_size" else [])


def test_a_cut_configuration_of_a_run_is_named_and_an_old_one_is_read(tmp_path):
    """At the end of a line too, where the rest is valid YAML."""
    assert list(keys())[-1] == LAST_KEY
    run, path = Run(str(tmp_path)), tmp_path / "config.yaml"
    run.write_config(tiny_config())
    content = path.read_bytes()
    ends = [place + 1 for place in range(len(content) - 1) if content[place : place + 1] == b"\n"]
    for length in (0, len(content) // 2, len(content) - 1, *ends[::5], ends[-1]):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=f"{path}: ") as refusal:
            run.config()
        assert "\n" not in str(refusal.value)
    for damaged in (content.replace(b"l", b"\xff", 1), content + b"\0\n", content + content, b"a: [1\n"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"{path}: .*; restore the file"):
            run.config()
    path.write_bytes(content[: ends[-1]])
    with pytest.raises(UserError, match=f"{path}: is cut, its last lines are missing; restore the file"):
        checks.recipe_of_run(str(tmp_path))
    old = yaml.safe_load(content)
    del old["train"]["cached_views"], old["data"]["resize"]
    path.write_text(yaml.safe_dump(old, sort_keys=False))
    assert run.config() == tiny_config()


def test_predictions_without_a_class_are_named(tmp_path):
    """The names of a Parquet file's columns have no checksum."""
    run = finished_run(tmp_path / "run", np.eye(3), np.arange(3))
    run.write_predictions("val", run.predictions("val").rename(columns={f"p_{CLASSES[1]}": "p_?"}))
    with pytest.raises(UserError, match=f"val.parquet: has no column 'p_{CLASSES[1]}'; restore the file"):
        validation_predictions([run])


def test_a_prepared_set_is_looked_for_up_to_the_bucket():
    in_bucket = list(run_images._beside("s3://bucket/runs/a", "/old/prepared/x"))
    parents = ["s3://bucket/runs", "s3://bucket"]
    assert in_bucket == [url for parent in parents for url in (f"{parent}/prepared/x", f"{parent}/x")]
    parents = ["/b/c/d/e", "/b/c/d", "/b/c", "/b"]  # four levels
    in_folder = list(run_images._beside("/b/c/d/e/run", "/old/prepared/x"))
    assert in_folder == [path for parent in parents for path in (f"{parent}/prepared/x", f"{parent}/x")]
    assert list(run_images._beside("/run", "/old/prepared/x")) == []


def test_a_limited_sample_depends_on_the_seed_of_the_split_only(tmp_path):
    prepared = tiny_prepared(tmp_path / "set", (30, 20, 10))

    def val_rows(**sets):
        return sampling_plan(prepared, tiny_config(1, data__limit=20, **sets)).rows["val"].tolist()

    assert val_rows() == val_rows(seed=5)
    assert val_rows() != val_rows(data__split_seed=5)


def test_a_folder_that_another_command_writes_is_in_use(tmp_path):
    with held_by_another_process(tmp_path / "new" / "out") as other:
        with pytest.raises(UserError, match=f"in use by process {other.pid} on .*; wait for it, stop it"):
            with folder_lock.locked(str(tmp_path / "new" / "out")):
                pytest.fail("two processes at once")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_in_use_by_another_thread_of_this_process(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with folder_lock.locked(str(tmp_path / "out")):
        for path in ("out", "link"):
            with pytest.raises(UserError, match=f"in use by process {os.getpid()} on "):
                with folder_lock.locked(str(tmp_path / path)):
                    pytest.fail("two threads at once")
    with folder_lock.locked(str(tmp_path / "out")):
        assert (tmp_path / "out" / "running.json").exists()


def test_a_killed_process_that_nobody_waits_for_holds_no_folder(tmp_path):
    """Its parent runs on, or the container has no init."""
    with held_by_another_process(tmp_path / "out") as other:
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(other.pid).status() == psutil.STATUS_ZOMBIE
        with folder_lock.locked(str(tmp_path / "out")):
            assert json.loads((tmp_path / "out" / "running.json").read_text())["pid"] == os.getpid()


def test_a_new_name_of_the_machine_costs_no_running_command_its_folder(monkeypatch, tmp_path):
    run = Run(str(tmp_path / "run"))
    run.lock()
    monkeypatch.setattr(socket, "gethostname", lambda: "renamed.local")
    run.lock()  # renewed
    run.unlock()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named_and_not_a_file_in_it(monkeypatch, tmp_path):
    def read_only(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(storage, "_ChunkedFile", read_only)
    message = rf"^{tmp_path}: cannot be written \(Permission denied\); choose another location \(--out\)$"
    for use in (
        check_writable,
        lambda folder: Run(folder).lock(),
        lambda folder: folder_lock.locked(folder).__enter__(),
    ):
        with pytest.raises(UserError, match=message):
            use(str(tmp_path))


def test_a_lock_is_renewed(monkeypatch, tmp_path):
    monkeypatch.setattr(folder_lock, "STALE_SECONDS", 0.04)
    with folder_lock.locked(str(tmp_path)):
        before = (tmp_path / "running.json").stat().st_mtime_ns
        deadline = time.monotonic() + 20
        while (tmp_path / "running.json").stat().st_mtime_ns == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / "running.json").stat().st_mtime_ns != before
    assert tmp_path.exists() is False
