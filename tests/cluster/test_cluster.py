"""Three real hosts, in the order of the file: one cluster serves all tests. Times are noted, not asserted."""

import subprocess
import time
from pathlib import Path

import hosts as machines
import pytest
from ray_cluster import note

from animalclf import storage
from animalclf.runs import Run

DATA, PREPARED = "s3://bucket/demo", "s3://bucket/prepared/a"
TRAIN, VAL = 96, 24  # rows; asserted to be those of the prepared set in the first test


# What a training on hosts of two shared cores needs to be small: the big CNN at its smallest input, one thread a worker.
SMALL = ["--recipe", "demo", "--set", "train.threads=1", "--set", "train.precision=fp32", "--cpu"]


def train(cluster, out, epochs, *more, workers=3):
    sets = ["--set", f"train.epochs={epochs}", "--workers", str(workers), "--prepared", PREPARED]
    return cluster.submit("train", "--data", DATA, "--out", f"s3://bucket/{out}", *SMALL, *sets, *more)


def check(out, epochs, rows=(TRAIN, VAL)):
    """Every epoch once, in order, each over all rows; the run ended."""
    run = Run(f"s3://bucket/{out}")
    history = run.metrics()
    assert [row["epoch"] for row in history] == list(range(1, epochs + 1))
    assert {(row["train_rows"], row["val_rows"]) for row in history} == {rows}
    assert run.result()["epochs"] == epochs and len(run.predictions("val")) == rows[1]
    return history


def test_the_comparison_uses_all_hosts_and_leaves_its_results_on_s3(cluster):
    drawn = cluster.submit("demo", "--only-data", "--data", DATA, "--out", "s3://bucket/unused", "--pictures", "120", "--test-pictures", "10")
    assert drawn.ends() == 0, drawn.log
    sets = [item for item in SMALL if item not in ("--recipe", "demo")]
    arguments = ["--recipes", "demo", "--seeds", "2", "--set", "train.epochs=1", "--workers", "3", "--prepared", PREPARED]
    job = cluster.submit("compare", "--data", DATA, "--out", "s3://bucket/compared", *arguments, *sets)
    assert job.ends() == 0, job.log
    assert cluster.trained_on() == {host.address for host in cluster.machines.hosts}
    assert "results: s3://bucket/compared" in job.log
    assert storage.exists("s3://bucket/compared/summary.json") and storage.exists("s3://bucket/compared/report.html")
    for seed in (0, 1):
        check(f"compared/trials/demo-s{seed}", 1)
        assert Run(f"s3://bucket/compared/trials/demo-s{seed}").result()["workers"] == 3


def test_a_killed_host_costs_the_running_epoch_and_comes_back(cluster):
    victim = cluster.others[-1]
    began = time.time()
    job = train(cluster, "runs/killed", 4)
    first = job.wait_for("first step after") - began
    note(f"submit to the first training step, pictures prepared: {first:.0f} s")
    job.wait_for("epoch   1/4")  # written; the second is running
    before, died = Run("s3://bucket/runs/killed").metrics(), time.time()
    victim.kill()
    restarted = job.wait_for("the workers started again")
    again = job.wait_for("| val loss", after=restarted)
    assert job.ends() == 0, job.log
    history = check("runs/killed", 4)
    epoch = max(row["seconds"] for row in history)
    assert before and history[: len(before)] == before  # what was finished was not done again
    note(f"host killed: workers again {restarted - died:.0f} s later, the lost epoch done {again - died:.0f} s later; the longest took {epoch:.0f} s")
    victim.start()
    note(f"the host joined again {cluster.wait_for_hosts(3):.0f} s after it was switched on")


def test_a_host_cut_off_for_half_a_minute(cluster):
    job = train(cluster, "runs/cut", 3)
    job.wait_for("epoch   1/3")
    cluster.others[0].cut()
    began = time.time()
    time.sleep(30)
    cluster.others[0].connect()
    assert job.ends() == 0, job.log
    check("runs/cut", 3)
    note(f"host cut off for 30 s: the job ended {time.time() - began:.0f} s after the cut")
    cluster.wait_for_hosts(3)


def test_a_killed_training_process_then_s3_that_fails_for_20_seconds(cluster):
    job = train(cluster, "runs/process", 4)
    job.wait_for("epoch   1/4")
    victim = next(host for host in cluster.machines.hosts if "TrainWorker" in host.ssh("ps -eo args"))
    assert "killed" in victim.ssh("pkill -9 -f '[r]ay::.*TrainWorker' && echo killed")
    job.wait_for("epoch   2/4")
    machines.fail_s3(20)
    assert job.ends() == 0, job.log
    check("runs/process", 4)


def test_a_killed_driver_and_the_same_command_with_resume_on_two_hosts(cluster):
    job = train(cluster, "runs/driver", 3, workers=2)
    job.wait_for("epoch   1/3")
    assert "killed" in cluster.head.ssh("pkill -9 -f '[r]ay_jobs.train' && echo killed")
    assert job.ends() not in (0, 130), job.log
    before = Run("s3://bucket/runs/driver").metrics()
    again = train(cluster, "runs/driver", 3, "--resume", workers=2)
    assert again.ends() == 0, again.log
    assert check("runs/driver", 3)[: len(before)] == before and before


def test_without_the_token_nothing_and_from_elsewhere_no_dashboard(cluster):
    status = "curl -s -o /dev/null -w '%{http_code}' --max-time 5"
    assert cluster.head.ssh(f"{status} http://127.0.0.1:8265/api/jobs/") == "401"
    assert cluster.head.ssh(f"{status} -H 'Authorization: Bearer {'f' * 64}' http://127.0.0.1:8265/api/jobs/") == "403"
    for host in cluster.others:
        assert host.ssh(f"{status} http://{cluster.head.address}:8265/", check=False) == "000"
    # Joining the cluster as a driver from another host, without the token.
    script = f"import ray; ray.init('{cluster.head.address}:6379', logging_level='ERROR'); print('JOINED')"
    refused = cluster.others[0].ssh(f'RAY_AUTH_MODE=disabled timeout 60 ~/animalclf-env/bin/python -c "{script}" 2>&1', check=False)
    assert "JOINED" not in refused
    for host in cluster.machines.hosts:
        note(f"{host.name} listens on: " + ", ".join(sorted(set(host.ssh("ss -ltnH | awk '{print $4}'").split()))))


def test_gradients_over_two_and_three_hosts_are_those_of_one_process(cluster):
    job = cluster.submit("gradients", folder=Path(__file__).parent)
    assert job.ends() == 0, job.log
    assert "2 hosts: the gradients agree" in job.log and "3 hosts: the gradients agree" in job.log


def test_ray_down_leaves_nothing(cluster):
    """The head is stopped by ssh, the others end when they miss it."""
    began = time.time()
    cluster.ray("down", "--yes", str(cluster.file))
    for host in cluster.machines.hosts:
        while "raylet/raylet" in host.ssh("ps -eo args"):
            assert time.time() - began < 240, host.name
            time.sleep(3)
    note(f"ray down: no Ray on any host after {time.time() - began:.0f} s")
    with pytest.raises((subprocess.SubprocessError, OSError)):
        cluster.ask("/api/version")
