"""The commands as a user types them: from drawn images to a submission, help with examples, errors with a remedy."""

import argparse
import contextlib
import io
import json
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from helpers import held_by_another_process, terminate_all, tiny_prepared
from rich.console import Console

import animalclf
from animalclf import cli, cluster
from animalclf.cli import main
from animalclf.commands import command_names, demo, reference
from animalclf.commands.common import Answer, add_command
from animalclf.config import Data
from animalclf.data.prepared_set import is_prepared
from animalclf.demo.dataset import write_demo
from animalclf.errors import UserError
from animalclf.prepare import sources
from animalclf.rows import PhaseProgress, StartupEvent

COMMANDS = command_names()
JOBS = [name for name in COMMANDS if name != "recipes"]  # which prints what the checkout has


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "demo"
    write_demo(str(folder), images=60, test_images=20, seed=1)
    return folder


def run(arguments):
    """The exit code of a command line."""
    return main(arguments.split())


def command_line(arguments):
    """The command in a separate process."""
    return [sys.executable, "-m", "animalclf.cli", *arguments.split()]


def answer(capsys):
    """The JSON that the command printed."""
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.ray
def test_from_images_to_a_scored_submission(drawn, tmp_path, capsys, ray_local):
    folder = str(tmp_path / "run")
    assert run(f"train --data {drawn} --out {folder} --recipe demo --local --set train.epochs=1 --json") == 0
    trained = answer(capsys)
    assert trained["run"] == folder and trained["rows"]["train"] + trained["rows"]["val"] == 60
    files = {"config.yaml", "environment.json", "metrics.jsonl", "result.json", "checkpoints", "predictions"}
    assert set(os.listdir(folder)) >= files
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["data_fingerprint"] and environment["versions"]["ray"] and environment["prepared"]
    assert run(f"evaluate {folder} --json") == 0
    evaluated = answer(capsys)
    assert evaluated["accuracy"] == pytest.approx(trained["accuracy"])
    assert evaluated["loss"] == pytest.approx(trained["loss"], rel=1e-3)
    sample = drawn / "sample_submission.csv"
    assert run(f"predict {folder} --data {drawn} --prior uniform --sample-submission {sample} --json") == 0
    submission = pd.read_csv(answer(capsys)["submission"])
    assert list(submission.columns) == ["id", "category"] and len(submission) == 20
    assert set(submission["id"]) == set(pd.read_csv(sample)["id"])
    assert set(submission["category"]) <= set(trained["classes"])


@pytest.mark.ray
def test_unreadable_images_are_listed_and_set_the_exit_code(drawn, tmp_path, capsys, ray_local):
    """A set with planted defects: prepared, each unreadable file named, exit code 3."""
    write_demo(str(tmp_path / "demo"), images=60, test_images=10, seed=1, defects=True)
    prepare = f"prepare --data {tmp_path}/demo --json --out {tmp_path}"
    assert run(f"{prepare}/prepared --set data.max_unreadable=0.2") == 3
    output = capsys.readouterr()
    unreadable = json.loads(output.out.splitlines()[-1])["unreadable"]
    assert len(unreadable) == 3
    for image in unreadable:
        assert image["path"].rpartition("/")[2] in output.err.replace("\n", "")
    assert run(f"{prepare}/strict --set data.max_unreadable=0.01") == 2
    assert not is_prepared(str(tmp_path / "strict"))


def test_the_old_flags_of_the_demo_are_accepted(tmp_path, capsys):
    assert run(f"demo --only-data --data {tmp_path}/demo --pictures 30 --test-pictures 5 --json") == 0
    assert len(list((tmp_path / "demo" / "test_images").iterdir())) == 5
    with pytest.raises(SystemExit):
        run("demo --help")
    assert "pictures" not in capsys.readouterr().out


def test_a_demo_without_test_images_is_refused_before_it_draws(tmp_path, capsys):
    assert run(f"demo --test-images 0 --data {tmp_path}/demo --out {tmp_path}/out") == 2
    assert "--test-images 0: at least 1" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_demo_compares_without_the_weights_that_are_missing(monkeypatch, capsys):
    missing: set[str] = set()

    def check(architecture: str, source: str) -> None:
        if source in missing:
            raise UserError(f"no weights {source}")

    monkeypatch.setattr("animalclf.models.weights.check", check)
    arguments = argparse.Namespace(weights="imagenet", epochs=1, seed=0)
    compared = demo.comparison(arguments)
    assert [spec.get("name", spec["recipe"]) for spec in compared["recipes"]] == [
        "big_cnn",
        "big_cnn_balanced",
        "vgg16_pooled",
        "quick",
    ]
    missing |= {"imagenet", "embedded"}
    vgg = demo.comparison(arguments)["recipes"][-1]
    assert vgg["set"]["model.weights"] == "none" and "without" in vgg["name"]
    output = capsys.readouterr().err
    assert "--weights FILE" in output and "animalclf[embedded]" in output
    missing.add("mine.pth")
    with pytest.raises(UserError, match=r"mine\.pth"):
        demo.comparison(argparse.Namespace(weights="mine.pth", epochs=1, seed=0))


def test_the_files_of_the_demo_are_not_skipped_images(tmp_path):
    write_demo(str(tmp_path), images=30, test_images=5, seed=1, defects=True)
    (tmp_path / "notes.txt").touch()
    for labelled in (True, False):
        assert sources.find(str(tmp_path), Data(), labelled=labelled).ignored == ["notes.txt"]


def test_a_stopped_demo_is_continued_by_the_same_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_demo("demo_data", images=30, test_images=5)
    weights = iter([f"{tmp_path}/a/vgg16.pth", f"{tmp_path}/b/vgg16.pth"])

    def folder_of(data: str = "demo_data", out: str = "", **different: object) -> tuple[str, bool]:
        return demo._comparison_folder(argparse.Namespace(out=out, data=data), {"epochs": 1, **different})

    monkeypatch.setattr(demo.time, "strftime", lambda _: f"{len(list(Path('runs').glob('*')))}")
    assert folder_of() == ("runs/demo-0", False)
    assert folder_of() == ("runs/demo-0", False) and "continuing runs/demo-0" in capsys.readouterr().err
    Path("runs/demo-0/comparison.yaml").touch()
    assert folder_of() == ("runs/demo-0", True) == folder_of(out="runs/demo-0")
    assert folder_of(weights=next(weights)) == ("runs/demo-1", False)
    assert folder_of(weights=next(weights)) == ("runs/demo-2", False)
    with held_by_another_process(tmp_path / "runs" / "demo-0"):
        assert folder_of() == ("runs/demo-3", False)
    shutil.rmtree("runs/demo-3")
    Path("runs/demo-1/demo.json").write_text("{")
    assert folder_of() == ("runs/demo-0", True)
    shutil.rmtree("demo_data")
    write_demo("demo_data", images=40, test_images=5)
    assert folder_of() == ("runs/demo-3", False)
    write_demo("other", images=40, test_images=5)
    assert folder_of("other") == ("runs/demo-4", False)
    Path("runs/demo-3/report.html").touch()  # it ended
    assert folder_of() == ("runs/demo-5", False)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert done.value.code == 0 and "examples:" in text and f"animalclf {command}" in text


def test_a_summary_may_hold_a_percent_sign(capsys):
    parser = argparse.ArgumentParser()
    command = add_command(
        parser.add_subparsers(), "x", lambda arguments: Answer({}), summary="Read 95 % of it.", examples="  x"
    )
    assert "Read 95 % of it." in parser.format_help() and "Read 95 % of it." in command.format_help()


@pytest.mark.parametrize("columns", ["40", "200"])
def test_the_reference_of_the_commands_is_current(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    stale = f"{reference.MARKDOWN} is stale: run `python -m animalclf.commands.reference` and commit what it writes"
    assert reference.MARKDOWN.read_text(encoding="utf-8") == reference.markdown(), stale


def test_an_error_of_a_command_names_its_flags(capsys):
    assert run("train --data x --resume") == 2
    assert "--resume needs --out" in capsys.readouterr().err


def test_text_that_is_not_ours_is_printed_as_it_is(capsys):
    assert run("recipes [red]:cat:[/nothing].yaml") == 2
    assert "[red]:cat:[/nothing].yaml: no such recipe file" in capsys.readouterr().err


@pytest.mark.parametrize("command", JOBS)
def test_the_jobs_are_the_commands(command, monkeypatch, capsys):
    monkeypatch.setattr(cli, "run_and_exit", main)  # which does not replace this process's signal handlers
    monkeypatch.setattr(sys, "argv", ["job", "--help"])
    with pytest.raises(SystemExit) as done:
        runpy.run_module(f"ray_jobs.{command}", run_name="__main__")
    assert done.value.code == 0 and f"usage: animalclf {command}" in capsys.readouterr().out


def test_the_package_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(cli, "run_and_exit", main)
    monkeypatch.setattr(sys, "argv", ["animalclf", "--help"])
    with pytest.raises(SystemExit) as done:
        runpy.run_module("animalclf", run_name="__main__")
    assert done.value.code == 0 and "usage: animalclf" in capsys.readouterr().out


def test_a_full_disk_is_an_error_with_a_remedy(tmp_path):
    """Files above 20 MB cannot be written, as on a full disk: the first checkpoint fails."""

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))

    prepared = tiny_prepared(tmp_path / "prepared", size=84)
    train = f"train --local --data {prepared.root} --out {tmp_path}/run --recipe demo --set train.epochs=1"
    done = subprocess.run(command_line(train), capture_output=True, text=True, preexec_fn=small_files)
    text = " ".join(done.stderr.split())
    assert done.returncode == 2 and "cannot be written" in text and "free space" in text and "Traceback" not in text
    assert not [name for name in os.listdir(tmp_path / "run" / "checkpoints") if name.endswith(".tmp")]


SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@pytest.mark.parametrize("command", ["train", "compare", "prepare", "predict"])
def test_sigterm_ends_a_command_like_ctrl_c(command, tmp_path):
    """Also a second one that arrives during the cleanup."""
    program = f"""
import os, signal, time
from animalclf import api, cli, cluster

def work(*arguments, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

api.{command} = work
cluster.leave_ray = lambda **_: os.kill(os.getpid(), signal.SIGTERM)
cli.run_and_exit(["{command}", *{["run"] if command == "predict" else []}, "--data", "photos", "--out", "out"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 143, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("stopped by SIGTERM")
    assert ["--resume" in line for line in lines[1:]] == ([True] if command in ("train", "compare") else [])


def test_a_cleanup_that_hangs_after_sigterm_is_given_up(tmp_path):
    program = """
import os, signal, time
from animalclf import api, cli, cluster
from animalclf.utils import interrupts

interrupts.CLEANUP_SECONDS = 0.2
api.train = lambda data, resume=False: os.kill(os.getpid(), signal.SIGTERM)
cluster.leave_ray = lambda **_: time.sleep(600)
cli._interrupted = lambda interrupt: time.sleep(600)
cli.run_and_exit(["train", "--data", "photos", "--out", "out"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 143, done.stderr
    assert done.stderr.count("stopped by SIGTERM") == 1 and "--resume" in done.stderr


SWALLOWED = """
import os, signal, time, types
from animalclf import api, cli

class Deleted:
    def __del__(self):
        os.kill(os.getpid(), signal.Signals({number}))
        sum(range(10))  # Python ignores exceptions here

def work(*arguments, **options):
    Deleted()
    time.sleep({seconds})  # 0: the command ends before the interrupt is raised again
    return types.SimpleNamespace(report="report.html", to_dict=dict)

cli.interrupts.AGAIN_SECONDS = {again}
api.report = work
cli.run_and_exit(["report", "run", "--json"])
"""


@SIGNALS
@pytest.mark.parametrize(("seconds", "again"), [(60, 0.05), (0, 1)], ids=["before the end", "at the end"])
def test_an_interrupt_that_python_swallows_is_not_lost(tmp_path, number, code, seconds, again):
    program = SWALLOWED.format(number=int(number), seconds=seconds, again=again)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=50)
    name = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
    assert (done.returncode, done.stdout) == (code, "")
    last = f"stopped by {name}; nothing half-written is left"
    lines = ["writing the report of run", *([] if seconds else ["report: report.html"]), last]
    assert done.stderr.splitlines() == lines


LAST_MOMENT = """
import atexit, os, signal, time
from animalclf import cli

def interrupt():
    os.kill(os.getpid(), signal.Signals({number}))
    time.sleep(0.1)

class Last:  # deleted while Python shuts down
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, {number})

cli.main = lambda argv: 3
if "{moment}" == "shutdown":
    last = Last()
else:
    atexit.register(interrupt)
cli.run_and_exit(["prepare"])
"""


@SIGNALS
@pytest.mark.parametrize("moment", ["exit handlers", "shutdown"])
def test_an_interrupt_after_the_end_does_not_change_the_exit_code(number, code, moment):
    program = LAST_MOMENT.format(number=int(number), moment=moment)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (3, "")


@SIGNALS
def test_an_interrupt_while_ray_is_left_prints_the_line(tmp_path, number, code):
    program = f"""
import os, signal, time
from animalclf import api, cli, cluster

api.evaluate = lambda *arguments, **options: 1 / 0
cluster.leave_ray = lambda **_: [os.kill(os.getpid(), signal.Signals({int(number)})), time.sleep(1)]
cli.run_and_exit(["evaluate", "run"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=50)
    assert done.returncode == code and done.stderr.count("stopped by") == 1


def test_a_command_ends_without_the_removal_of_its_modules(tmp_path):
    """It takes PyTorch and Ray almost a second. Threads, exit handlers and output are as ever."""
    program = """
import atexit, sys, threading, time
from animalclf import cli

class Removed:
    def __del__(self):
        print("removed", flush=True)

def work():
    time.sleep(0.3)
    print("thread")

removed = sys.modules["removed"] = Removed()
atexit.register(print, "handler")
cli.main = lambda argv: threading.Thread(target=work).start() or 4
cli.run_and_exit([])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.stdout.split(), done.stderr, done.returncode) == (["thread", "handler"], "", 4)


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2)])
def test_a_command_without_standard_streams_ends_as_with_them(closed):
    """`command >&-`, as some schedulers start it."""
    close = "".join(f" {number}>&-" for number in closed)
    program = f'exec "$0" -c "from animalclf import cli; cli.main = lambda argv: 4; cli.run_and_exit([])"{close}'
    done = subprocess.run(["sh", "-c", program, sys.executable], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (4, "")


@pytest.mark.parametrize("command, reason", [("| :", "Broken pipe"), ("> /dev/full", "No space left on device")])
def test_a_result_that_nobody_can_read_is_a_line(command, reason):
    line = f'"$0" -m animalclf.cli recipes --json {command}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", line, sys.executable], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: standard output: --json cannot be written ({reason})"


def test_ignored_sigterm_stays_ignored(tmp_path):
    program = "import signal; from animalclf.utils import interrupts; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    program += "interrupts.handle_sigterm(print); assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Images whose preparation takes seconds."""
    folder = tmp_path_factory.mktemp("many") / "demo"
    write_demo(str(folder), images=300, test_images=10, seed=2)
    return folder


@pytest.mark.ray
@SIGNALS
def test_an_interrupt_during_prepare_leaves_nothing_that_looks_finished(many, tmp_path, ray_local, number, code):
    out = tmp_path / "prepared"
    process = subprocess.Popen(command_line(f"prepare --data {many} --out {out}"), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out.exists() and any(out.iterdir())) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if number == signal.SIGTERM:
        terminate_all(process.pid)
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert err.count("stopped by") == 1 and "Traceback" not in err and "SystemExit" not in err
    assert not is_prepared(str(out)) and not list(out.glob("*.parquet"))
    assert run(f"prepare --data {many} --out {out} --recipe demo") == 0 and is_prepared(str(out))


@pytest.mark.ray
@SIGNALS
def test_an_interrupt_while_ray_starts_leaves_no_process(many, tmp_path, number, code):
    command = command_line(f"prepare --data {many} --out {tmp_path}/prepared")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    children, of_raylet, deadline = [], [], time.monotonic() + 120
    while not of_raylet and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(process.pid).children(recursive=True)
            of_raylet = [child for child in children if child.ppid() != process.pid]
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(children, timeout=20)  # Ray's agents look for a minute why their Ray is gone
    assert not [child for child in alive if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def test_a_log_has_the_start_and_a_line_after_seconds_then_a_minute(monkeypatch):
    from animalclf.training import display as module
    from animalclf.utils import console, throttle

    screen, now = io.StringIO(), [1000.0]
    written = Console(file=screen, width=100, highlight=False)
    monkeypatch.setattr(console, "console", written)
    monkeypatch.setattr(throttle.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "seconds_since_start", lambda: now[0] - 1000)
    display = module.TrainingDisplay(3)
    for phase, seconds in {"images": 1.5, "ray": 3.0, "workers": 7.0}.items():
        now[0] = 1000 + seconds
        display.show(StartupEvent(phase))
    for seconds in range(1, 260):
        now[0] += 1
        display.show(PhaseProgress("train", 4 * seconds, 1040, seconds, epoch=1, epochs=3))
    display.show(PhaseProgress("heads", 0, 200, 0.0, part="fold 2 of 4"))
    first, *lines, last = screen.getvalue().splitlines()
    parts = "images 1.5 s, Ray 1.5 s, workers 4.0 s"
    assert first == f"training starts after 7.0 s ({parts}), the first batch is done 1.0 s later"
    assert [line.partition("/1,040")[0] for line in lines] == [
        f"epoch 1/3  training: {4 * (1 + seconds):,}" for seconds in (5, 15, 35, 75, 135, 195, 255)
    ]
    assert lines[0].endswith("24/1,040  4 images/s  4 min 14 s left")
    assert last == "fold 2 of 4  fitting the heads: on 200 images"


def test_without_arguments_the_help_is_printed(capsys):
    assert main([]) == 2 and "examples:" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"animalclf {animalclf.__version__}\n"


@pytest.mark.parametrize(
    ("connection", "remove_logs", "left"), [("own", True, 0), ("own", False, 1), ("other", True, 1)]
)
def test_the_folder_of_an_own_ray_is_removed_after_success_only(tmp_path, monkeypatch, connection, remove_logs, left):
    (tmp_path / "session" / "logs").mkdir(parents=True)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    for name, value in {"_session": str(tmp_path / "session"), "_own_connection": "own"}.items():
        monkeypatch.setattr(cluster, name, value)
    monkeypatch.setattr(cluster, "_connection", connection)
    monkeypatch.setattr(cluster, "_current_connection", lambda: connection)
    cluster.leave_ray(remove_logs=remove_logs)
    assert len(list(tmp_path.iterdir())) == left and not cluster._connection


INTERRUPTED_IMPORT = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "animalclf.commands":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from animalclf.__main__ import main
main()
"""


def test_ctrl_c_while_modules_are_imported_prints_a_line():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (130, "stopped by Ctrl-C\n")
