"""The commands as a user types them: from drawn pictures to a scored submission, help that teaches, faults that name their remedy."""

import contextlib
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
from rich.console import Console

from animalclf.cli import main
from animalclf.data.prepared_set import is_prepared
from animalclf.demo.dataset import write_demo
from animalclf.rows import PhaseProgress, StartupEvent

COMMANDS = ["prepare", "train", "compare", "evaluate", "predict", "ensemble", "report", "submit", "demo"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "demo"
    write_demo(str(folder), images=60, test_images=20, seed=1)
    return folder


def answer(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.ray
def test_from_pictures_to_a_scored_submission(drawn, tmp_path, capsys, ray_local):
    run = str(tmp_path / "run")
    assert (
        main(
            [
                "train",
                "--data",
                str(drawn),
                "--out",
                run,
                "--recipe",
                "demo",
                "--local",
                "--set",
                "train.epochs=1",
                "--json",
            ]
        )
        == 0
    )
    trained = answer(capsys)
    assert trained["run"] == run and trained["rows"]["train"] + trained["rows"]["val"] == 60
    assert set(os.listdir(run)) >= {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "result.json",
        "checkpoints",
        "predictions",
    }
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["data_fingerprint"] and environment["versions"]["ray"] and environment["prepared"]
    assert main(["evaluate", run, "--json"]) == 0
    evaluated = answer(capsys)
    assert evaluated["accuracy"] == pytest.approx(trained["accuracy"]) and evaluated["loss"] == pytest.approx(
        trained["loss"], rel=1e-3
    )
    sample = str(drawn / "sample_submission.csv")
    assert (
        main(["predict", run, "--data", str(drawn), "--prior", "uniform", "--sample-submission", sample, "--json"]) == 0
    )
    predicted = answer(capsys)
    submission = pd.read_csv(predicted["submission"])
    assert list(submission.columns) == ["id", "category"] and len(submission) == 20
    assert set(submission["id"]) == set(pd.read_csv(sample)["id"]) and set(submission["category"]) <= set(
        trained["classes"]
    )


@pytest.mark.ray
def test_an_unreadable_picture_is_named_and_the_exit_code_says_so(drawn, tmp_path, capsys, ray_local):
    """A set with planted defects: prepared, each bad file named, exit code 3: done, but not everything could be read."""
    folder = tmp_path / "demo"
    write_demo(str(folder), images=60, test_images=10, seed=1, defects=True)
    code = main(
        ["prepare", "--data", str(folder), "--out", str(tmp_path / "prepared"), "--set", "data.max_bad=0.2", "--json"]
    )
    output = capsys.readouterr()
    info = json.loads(output.out.splitlines()[-1])
    assert code == 3 and len(info["bad"]) == 3
    for bad in info["bad"]:
        assert bad["path"].rpartition("/")[2] in output.err.replace("\n", "")
    assert (
        main(["prepare", "--data", str(folder), "--out", str(tmp_path / "strict"), "--set", "data.max_bad=0.01"]) == 2
    )
    assert not is_prepared(str(tmp_path / "strict"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_examples(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert done.value.code == 0 and "examples:" in text and f"animalclf {command}" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_the_jobs_are_the_commands(command):
    done = subprocess.run([sys.executable, "-m", f"ray_jobs.{command}", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and f"usage: animalclf {command}" in done.stdout


def test_a_full_disk_is_an_error_with_a_remedy(drawn, tmp_path):
    """Files above 20 MB cannot be written, as on a full disk: the first checkpoint fails."""

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))

    command = [
        sys.executable,
        "-m",
        "animalclf.cli",
        "train",
        "--local",
        "--data",
        str(drawn),
        "--out",
        str(tmp_path / "run"),
        "--recipe",
        "demo",
    ]
    command += ["--set", "train.epochs=1"]
    subprocess.run(
        [*command[:3], "prepare", "--data", str(drawn), "--out", str(tmp_path / "prepared"), "--recipe", "demo"],
        check=True,
        capture_output=True,
    )
    command[command.index(str(drawn))] = str(tmp_path / "prepared")
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_files)
    text = " ".join(done.stderr.split())
    assert done.returncode == 2 and "cannot be written" in text and "free space" in text and "Traceback" not in text
    assert not [name for name in os.listdir(tmp_path / "run" / "checkpoints") if name.endswith(".tmp")]


def test_ctrl_c_during_prepare_leaves_nothing_that_looks_finished(tmp_path):
    write_demo(str(tmp_path / "demo"), images=300, test_images=10, seed=2)
    out = tmp_path / "prepared"
    command = [sys.executable, "-m", "animalclf.cli", "prepare", "--data", str(tmp_path / "demo"), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out.exists() and any(out.iterdir())) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert not is_prepared(str(out)) and not list(out.glob("*.parquet"))
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0 and is_prepared(str(out)), again.stderr


def test_ctrl_c_while_ray_starts_leaves_no_process(tmp_path):
    write_demo(str(tmp_path / "demo"), images=300, test_images=10, seed=2)
    command = [
        sys.executable,
        "-m",
        "animalclf.cli",
        "prepare",
        "--data",
        str(tmp_path / "demo"),
        "--out",
        str(tmp_path / "prepared"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    started, of_raylet, deadline = [], [], time.monotonic() + 120
    while not of_raylet and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
        with contextlib.suppress(psutil.Error):
            started = psutil.Process(process.pid).children(recursive=True)
            of_raylet = [each for each in started if each.ppid() != process.pid]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    _, left = psutil.wait_procs(started, timeout=20)  # Ray's agents look for a minute why their Ray is gone
    assert not [each for each in left if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def test_a_log_has_the_start_and_a_line_a_minute(monkeypatch):
    from animalclf.training import display as module
    from animalclf.utils import console, throttle

    screen, now = io.StringIO(), [1000.0]
    written = Console(file=screen, width=100, highlight=False)
    for each in (console, module):
        monkeypatch.setattr(each, "console", written)
    monkeypatch.setattr(throttle.time, "monotonic", lambda: now[0])
    display = module.TrainingDisplay(3)
    display.show(StartupEvent("ray"))
    for seconds in range(0, 130, 10):
        now[0] += 10
        display.show(PhaseProgress("train", 4 * seconds, 1000, max(seconds, 1), epoch=2, epochs=3))
    first, *lines = screen.getvalue().splitlines()
    assert re.fullmatch(r"first step after .* \(Ray .*, first step .*\)", first)
    assert lines == [
        f"epoch 2/3  training: {4 * at}/1,000  4 images/s  {left} left"
        for at, left in ((60, "3 min 10 s"), (120, "2 min 10 s"))
    ]
