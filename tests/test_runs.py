"""The lock of a folder, what a resume may change, and where a moved run looks for its prepared set."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

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
from animalclf.folder_lock import STALE_SECONDS, InUseError, LockHolder, locked
from animalclf.inference.validation import validation_predictions
from animalclf.prepare import output_dir
from animalclf.runs import Run, open_run
from animalclf.training import checkpoint, checks, launch
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
        folder_lock.FolderLock(run.root).renew()
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
            with pytest.raises(UserError, match="in use by another call in this process; wait for it, or"):
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
    folder_lock.FolderLock(run.root).renew()
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


def is_lost(root) -> bool:
    try:
        folder_lock.FolderLock(str(root)).check_held()
    except folder_lock.LostLockError:
        return True
    return False


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_a_lock_is_renewed(monkeypatch, tmp_path):
    """Also that of a run, whatever its process does meanwhile."""
    monkeypatch.setattr(folder_lock, "STALE_SECONDS", 0.04)
    run = Run(str(tmp_path))
    run.lock()
    before = (tmp_path / "running.json").stat().st_mtime_ns
    wait_until(lambda: (tmp_path / "running.json").stat().st_mtime_ns != before)
    run.unlock()
    assert tmp_path.exists() is False


def test_a_removed_folder_is_not_made_again(monkeypatch, tmp_path):
    monkeypatch.setattr(folder_lock, "STALE_SECONDS", 0.04)
    renewed = threading.Event()
    renew = folder_lock.FolderLock.renew
    with folder_lock.locked(str(tmp_path / "out")):
        shutil.rmtree(tmp_path / "out")
        monkeypatch.setattr(folder_lock.FolderLock, "renew", lambda *lock: (renew(*lock), renewed.set()))
        assert renewed.wait(20)
    assert not (tmp_path / "out").exists()


def test_a_lock_that_another_machine_took_is_lost(monkeypatch, tmp_path):
    """This machine was suspended for longer than a lock counts."""
    monkeypatch.setattr(folder_lock, "STALE_SECONDS", 0.2)
    with folder_lock.locked(str(tmp_path)) as lock:
        lock.check_held()
        write_lock(Run(str(tmp_path)), "elsewhere", 1, -3600)
        wait_until(lambda: is_lost(tmp_path))
        with pytest.raises(UserError, match=r"taken by process 1 on elsewhere, .*; run the command again"):
            lock.check_held()
    assert json.loads((tmp_path / "running.json").read_text())["host"] == "elsewhere"


def test_a_lost_lock_is_noticed_before_the_next_renewal(monkeypatch, tmp_path):
    clock = time.time
    with folder_lock.locked(str(tmp_path)) as lock:
        write_lock(Run(str(tmp_path)), "elsewhere", 1, 0)
        monkeypatch.setattr(time, "time", lambda: clock() + STALE_SECONDS + 1)
        with pytest.raises(folder_lock.LostLockError, match="taken by process 1 on elsewhere"):
            lock.check_held()


@pytest.mark.parametrize("taken", [True, False])
def test_a_failure_removes_nothing_of_a_folder_that_another_machine_took(tmp_path, taken):
    with folder_lock.locked(str(tmp_path)) as lock:
        with (
            pytest.raises(folder_lock.LostLockError if taken else UserError) as error,
            output_dir.cleared_on_failure(str(tmp_path), lock),
        ):
            (tmp_path / "shard-00000.parquet").touch()
            if taken:
                write_lock(Run(str(tmp_path)), "elsewhere", 1, 0)
            raise UserError("shard-00001.parquet was written but is missing")
        assert (tmp_path / "shard-00000.parquet").exists() is taken
        assert taken or "is missing" in str(error.value)


@pytest.mark.parametrize("content", ["", "[", "[]", '{"host": 1}'])
def test_a_lock_file_of_others_is_named_with_its_remedy(tmp_path, content):
    (tmp_path / "running.json").write_text(content)
    with pytest.raises(
        UserError, match=r"running\.json: not a lock file of animalclf; if no command .*, remove the file"
    ):
        Run(str(tmp_path)).lock()


@pytest.mark.parametrize("late", [True, False])
def test_a_lock_that_was_taken_and_released_is_lost(monkeypatch, tmp_path, late):
    clock = time.time
    with folder_lock.locked(str(tmp_path)) as lock:
        (tmp_path / "running.json").unlink()
        if late:
            monkeypatch.setattr(time, "time", lambda: clock() + STALE_SECONDS + 1)
            with pytest.raises(folder_lock.LostLockError, match="taken by another process, because"):
                lock.renew()
        else:  # somebody removed the file
            lock.renew()
        assert (tmp_path / "running.json").exists() is not late


def test_a_training_in_this_process_ends_when_its_lock_is_lost(monkeypatch, tmp_path):
    monkeypatch.setattr(folder_lock, "STALE_SECONDS", 0.2)
    prepared, config = tiny_prepared(tmp_path / "set", (30, 20, 10)), tiny_config(3)
    run, events = checks.lock_run(str(tmp_path / "run"), config, resume=False), []

    def report(event) -> None:
        if not events:
            write_lock(run, "elsewhere", 1, -3600)
            wait_until(lambda: is_lost(run.root))
        events.append(event)

    launch.record_run(config, prepared, run)
    with pytest.raises(folder_lock.LostLockError):
        launch.train_local(config, prepared, run, report)
    run.unlock()
    assert len(events) == 1 and not run.metrics()


def test_a_change_of_the_clock_ends_no_lock(monkeypatch, tmp_path):
    """On Linux a process's start is counted from the boot, whose time follows the clock."""
    create_time = psutil.Process.create_time
    with held_by_another_process(tmp_path / "out") as other:
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: create_time(process) + 3600)
        with pytest.raises(UserError, match=f"in use by process {other.pid} on "):
            Run(str(tmp_path / "out")).lock()


def test_a_process_of_the_same_number_holds_nothing(tmp_path):
    """In a container that started again, most numbers are those of before."""
    run = Run(str(tmp_path / "run"))
    write_lock(run, socket.gethostname(), os.getpid(), 0)
    lock = json.loads((tmp_path / "run" / "running.json").read_text()) | {"start_in_boot": "another boot 1"}
    (tmp_path / "run" / "running.json").write_text(json.dumps(lock | {"made_folders": [str(tmp_path / "run")]}))
    run.lock()
    assert json.loads((tmp_path / "run" / "running.json").read_text())["made_folders"] == []
    run.unlock()


def test_ctrl_c_during_the_last_renewal_releases_the_lock(monkeypatch, tmp_path):
    def interrupt(self) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_lock._Renewal, "end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        with folder_lock.locked(str(tmp_path / "out")):
            pass
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    with folder_lock.locked(str(tmp_path / "out")):
        pass


def test_the_folders_that_locks_make_are_removed_whoever_made_them(tmp_path):
    def lock_often(_):
        for _ in range(500):
            with contextlib.suppress(InUseError), locked(str(tmp_path / "a" / "b" / "c")):
                pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lock_often, range(4)))
    assert not list(tmp_path.iterdir())


def test_a_lock_waits_for_the_release_of_another_process(tmp_path):
    """Else the folder may be removed in between, and a third process could lock one of the same name."""
    run, ended = Run(str(tmp_path / "new" / "run")), threading.Event()
    run.lock()
    folder = os.open(run.root, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)  # as a process that is about to lock the folder

    def unlock() -> None:
        run.unlock()
        ended.set()

    threading.Thread(target=unlock, daemon=True).start()
    assert not ended.wait(0.3) and os.path.exists(run.url("running.json"))
    os.close(folder)
    assert ended.wait(20) and not list(tmp_path.iterdir())


def test_a_folder_that_is_removed_while_it_is_waited_for_is_made_again(monkeypatch, tmp_path):
    flock, removed = fcntl.flock, []

    def remove_once(folder: int, operation: int) -> None:
        flock(folder, operation)
        if not removed:
            removed.append(os.rmdir(tmp_path / "out"))

    monkeypatch.setattr(fcntl, "flock", remove_once)
    with folder_lock._one_at_a_time(str(tmp_path / "out")):
        again = os.open(tmp_path / "out", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(again)


def test_leftovers_of_other_commands_stay(tmp_path):
    """`predict` and `prepare` look at the files of their folder only, which may be a large one."""
    names = ("a.0123abcd.tmp", "below/b.0123abcd.tmp", "trials/c/checkpoints/d.0123abcd.tmp", "trials/e/f.0123abcd.tmp")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "trials" / "c" / "running.json").touch()  # another process writes there

    def left() -> list[str]:
        return [name for name in names if (tmp_path / name).exists()]

    with folder_lock.locked(str(tmp_path)):
        assert left() == list(names[1:])
    Run(str(tmp_path)).lock()
    assert left() == [names[2]]
    Run(str(tmp_path)).unlock()
