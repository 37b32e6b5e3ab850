"""Submission of jobs to a private one-node cluster: exit status, log, one-line errors."""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from animalclf.commands.submit import add_arguments
from animalclf.errors import UserError
from animalclf.raycompat.patches import STOCK_RAY_VARIABLE
from animalclf.submit import checks, connection, log
from animalclf.submit import job as submission

ROOT = Path(__file__).parents[1]
# The code of the job "train" on the cluster.
TRAIN_JOB = """
import os, signal, sys, time
print("started with", sys.argv[1:], os.environ.get("COLOUR"), flush=True)
if "--wait" in sys.argv:
    time.sleep(60)
if "--killed" in sys.argv:
    os.kill(os.getpid(), signal.SIGKILL)
print("done", flush=True)
sys.exit(int(os.environ.get("CODE", 0)))
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray cluster of one node with token authentication: its address, the token file and a folder of jobs."""
    folder = tmp_path_factory.mktemp("submit")
    token = folder / "token"
    token.write_text("0123456789abcdef" * 4)
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--head",
        "--block",
        "--num-cpus=1",
        "--object-store-memory=100000000",
        "--disable-usage-stats",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={port}",
        f"--dashboard-agent-listen-port={free_port()}",
        f"--port={free_port()}",
        f"--ray-client-server-port={free_port()}",
        f"--temp-dir=/tmp/ray-submit-{os.getpid()}",
    ]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    jobs = folder / "code"
    (jobs / "ray_jobs").mkdir(parents=True)
    (jobs / "ray_jobs" / "__init__.py").write_text("")
    (jobs / "ray_jobs" / "train.py").write_text(TRAIN_JOB)
    try:
        for _ in range(300):
            assert process.poll() is None
            try:
                if requests.get(f"{address}/api/jobs/", timeout=5).status_code == 401:
                    break
            except requests.exceptions.ConnectionError:
                time.sleep(0.2)
        yield address, str(token), str(jobs)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(f"/tmp/ray-submit-{os.getpid()}", ignore_errors=True)


def submit(cluster, *arguments, **options):
    address, token, jobs = cluster
    environment = {**os.environ, "RAY_AUTH_TOKEN_PATH": token}
    command = [sys.executable, "-m", "ray_jobs.submit", "--address", address, "--folder", jobs, *arguments]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.ray
def test_exit_status_log_and_folder_of_the_results(cluster):
    succeeding = submit(cluster, "--env", "COLOUR=red", "train", "--out", "s3://b/r", "--set", "a=b c")
    exiting_with_3 = submit(cluster, "--env", "CODE=3", "train", "--out", "s3://b/r")
    killed = submit(cluster, "train", "--out", "s3://b/r", "--killed")

    out, err = succeeding.communicate(timeout=120)
    assert succeeding.returncode == 0 and "succeeded" in err and "results: s3://b/r" in err
    assert "started with ['--out', 's3://b/r', '--set', 'a=b c'] red" in out and "done" in out

    _, err = exiting_with_3.communicate(timeout=120)
    assert exiting_with_3.returncode == 3 and "results: s3://b/r" in err

    _, err = killed.communicate(timeout=120)
    assert killed.returncode == 137 and "partial results: s3://b/r" in err and "--resume" in err


@pytest.mark.ray
def test_a_stopped_job_exits_with_130_and_an_interrupted_client_does_not_stop_it(cluster, monkeypatch):
    address, token, _ = cluster
    interrupted = submit(cluster, "train", "--out", "s3://b/r", "--wait")
    for line in interrupted.stdout:
        if "started" in line:
            break
    interrupted.send_signal(signal.SIGINT)
    _, err = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130 and "continues" in err
    name = err.split("--follow ")[1].split()[0]
    following = submit(cluster, "--follow", name)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", token)
    client = connection.connect(address)
    assert str(client.get_job_status(name).value) == "RUNNING"
    client.stop_job(name)
    out, err = following.communicate(timeout=60)
    assert following.returncode == 130 and "was stopped" in err and "started with" in out


@pytest.mark.ray
def test_errors_before_the_submission(cluster, monkeypatch, tmp_path):
    address, token, jobs = cluster
    with pytest.raises(UserError, match=r"no Ray dashboard answers there.*ray dashboard cluster.yaml"):
        submission.submit("train", ["--out", "s3://b/r"], address="http://127.0.0.1:9", folder=jobs)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="requires a token"):
        submission.submit("train", ["--out", "s3://b/r"], address=address, folder=jobs)
    (tmp_path / "other").write_text("f" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "other"))
    with pytest.raises(UserError, match="has another token"):
        submission.submit("train", ["--out", "s3://b/r"], address=address, folder=jobs)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", token)
    monkeypatch.setattr("ray.__version__", "1.2.3")
    with pytest.raises(UserError, match=r"the cluster runs Ray 2\.\d+.*this environment Ray 1\.2\.3"):
        submission.submit("train", ["--out", "s3://b/r"], address=address, folder=jobs)
    monkeypatch.undo()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", token)
    with pytest.raises(UserError, match="not exist"):
        log.follow(connection.connect(address), "nothing")


@pytest.mark.parametrize(
    "job, arguments, options, message",
    [
        ("trian", [], {}, "unknown job 'trian'; jobs: .*train"),
        ("train", ["--data", "s3://b/p"], {}, "train needs --out"),
        (
            "train",
            ["--data", "s3://b/p", "--out", "runs/x"],
            {},
            "--out runs/x: a relative path .* s3://.*, or the absolute",
        ),
        ("predict", ["s3://b/r", "--data", "s3://b/p", "--out=x"], {}, "--out x: a relative path"),
        ("demo", ["--out=/x"], {}, "demo needs --data"),
        ("demo", ["--out=/x", "--data", "photos"], {}, "--data photos: a relative path"),
        ("train", ["--out", "/x", "--no-wait"], {}, "--no-wait: a flag of submit.* submit --no-wait .* train"),
        ("train", ["--out", "/x", "--address=http://a"], {}, "--address: a flag of submit"),
        ("train", ["--out", "s3://b/r"], {"folder": "/"}, "there is no ray_jobs/ here"),
        ("train", ["--out", "s3://b/r"], {"env": {"AWS_SECRET_ACCESS_KEY": "x"}}, "everybody who sees the dashboard"),
        ("train", ["--out", "s3://b/r"], {"address": "ray://x:10001"}, "give the dashboard's address"),
    ],
)
def test_wrong_requests(job, arguments, options, message):
    with pytest.raises(UserError, match=message):
        submission.submit(job, arguments, **{"folder": str(ROOT), **options})


@pytest.mark.parametrize(
    "job, arguments",
    [
        ("train", ["--out", "/mnt/shared/r"]),
        ("train", ["--out", "~/r"]),
        ("train", ["--help"]),
        ("predict", ["/mnt/shared/r", "--data", "s3://b/p"]),
        ("report", ["s3://b/r"]),
    ],
)
def test_jobs_whose_results_outlive_them_are_accepted(job, arguments):
    checks.check_job(job, arguments, str(ROOT), {})


def test_the_flags_of_submit_are_those_of_its_parser():
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    assert {flag for action in parser._actions for flag in action.option_strings} == set(checks.FLAGS)


@pytest.mark.parametrize(
    "code, expected",
    [(0, ["results: /r"]), (2, []), (137, ["partial results: /r", "continue it with the same command and --resume"])],
)
def test_what_is_printed_after_the_job(code, expected, monkeypatch):
    lines = []
    client = SimpleNamespace(submit_job=lambda **_: "job-1")
    monkeypatch.setattr(submission, "connect", lambda address: client)
    monkeypatch.setattr(submission, "packed_size", lambda folder: None)
    monkeypatch.setattr(submission, "follow", lambda client, job_id: code)
    monkeypatch.setattr(submission, "show_line", lines.append)
    assert submission.submit("train", ["--out", "/r"], folder=str(ROOT)) == code
    assert lines[1:] == expected


@pytest.mark.skipif(bool(os.environ.get(STOCK_RAY_VARIABLE)), reason="stock Ray does not report the size of a folder")
def test_a_submission_is_code_only_and_small(tmp_path):
    sources = [path for folder in ("animalclf", "ray_jobs") for path in (ROOT / folder).rglob("*")]
    code = sum(path.stat().st_size for path in sources if path.is_file() and path.suffix != ".pyc")
    # Beside the code: pyproject.toml, constraints, examples, and what zip adds to each file.
    assert code < checks.packed_size(str(ROOT)) < 1.05 * code + 100_000
    (tmp_path / "photos.bin").write_bytes(os.urandom(checks.MAX_PACKED + 1))
    with pytest.raises(UserError, match=r"packs to 10 MB.*\.rayignore.*photos.bin"):
        checks.packed_size(str(tmp_path))
    (tmp_path / ".rayignore").write_text("*.bin\n")
    assert checks.packed_size(str(tmp_path)) < 1000
