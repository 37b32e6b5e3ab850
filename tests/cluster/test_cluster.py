"""Three real hosts, in the order of the file: one cluster serves all tests. Times are noted, not asserted."""

import subprocess
import time
from pathlib import Path

import hosts as machines
import pytest
import torch
from ray_cluster import PATIENCE, note

from animalclf.rows import EpochRow
from animalclf.runs import Run
from animalclf.training import checkpoint
from animalclf.utils import storage

DATA, PREPARED = "s3://bucket/demo", "s3://bucket/prepared/a"
TRAIN, VAL = 96, 24  # rows; asserted to be those of the prepared set in the first test


# A small training for hosts that share two cores: the big CNN at its smallest input, one thread per worker.
SMALL = ["--set", "train.threads=1", "--set", "train.precision=fp32", "--set", "optim.schedule=constant", "--cpu"]
ENDLESS = 10_000  # epochs of a training that goes on for as long as harm is done to it, on however fast a machine


def train(cluster, out, epochs, *more, workers=3):
    sets = ["--set", f"train.epochs={epochs}", "--set", "train.max_failures=10"]
    sets += ["--workers", str(workers), "--prepared", PREPARED]
    return cluster.submit(
        "train", "--data", DATA, "--out", f"s3://bucket/{out}", "--recipe", "demo", *SMALL, *sets, *more
    )


def check(out, epochs, rows=(TRAIN, VAL)):
    """Every epoch once, in order, each over all rows; the run ended."""
    run = Run(f"s3://bucket/{out}")
    history = run.metrics()
    assert [row.epoch for row in history] == list(range(1, epochs + 1))
    assert {(row.train_rows, row.val_rows) for row in history} == {rows}
    assert run.result().epochs == epochs and len(run.predictions("val")) == rows[1]
    return history


def saved_epochs(out):
    """The epochs that a resume keeps, those of the last checkpoint: a kill may come before metrics.jsonl has the last
    one."""
    run = Run(f"s3://bucket/{out}")
    rows = [
        EpochRow.from_dict(row, out) for row in checkpoint.load(run.checkpoint("last"), torch.device("cpu"))["history"]
    ]
    written = run.metrics()
    assert rows[: len(written)] == written and len(rows) - len(written) in (0, 1)
    return rows


def test_the_comparison_uses_all_hosts_and_leaves_its_results_on_s3(cluster):
    demo_log = cluster.submit(
        "demo",
        "--only-data",
        "--data",
        DATA,
        "--out",
        "s3://bucket/unused",
        "--images",
        "120",
        "--test-images",
        "10",
    )
    assert demo_log.ends() == 0, demo_log.log
    arguments = [
        "--recipes",
        "demo",
        "--seeds",
        "2",
        "--set",
        "train.epochs=2",
        "--workers",
        "3",
        "--prepared",
        PREPARED,
    ]
    job = cluster.submit("compare", "--data", DATA, "--out", "s3://bucket/compared", *arguments, *SMALL)
    assert job.ends() == 0, job.log
    assert cluster.trained_on() == {host.address for host in cluster.machines.hosts}
    assert "results: s3://bucket/compared" in job.log
    assert storage.exists("s3://bucket/compared/summary.json") and storage.exists("s3://bucket/compared/report.html")
    for seed in (0, 1):
        check(f"compared/trials/demo-s{seed}", 2)
        assert Run(f"s3://bucket/compared/trials/demo-s{seed}").result().workers == 3


@pytest.fixture(scope="module")
def job(cluster):
    """One training on three workers, to which the next tests do one harm after the other. Its first epoch is done."""
    began = time.time()
    job = train(cluster, "runs/faults", ENDLESS)
    note(f"submit to the first training step, images prepared: {job.wait_for('training starts after') - began:.0f} s")
    job.wait_for("| val ")
    return job


def training_hosts(hosts):
    return [host for host in hosts if "TrainWorker" in host.ssh("ps -eo args")]


def training_host(hosts):
    """The first of the hosts on which a training worker runs, as soon as there is one."""
    end = time.time() + PATIENCE
    while time.time() < end:
        for host in training_hosts(hosts):
            return host
        time.sleep(0.5)
    raise AssertionError(f"no training worker on {', '.join(host.name for host in hosts)}")


@pytest.mark.parametrize("signal", ["KILL", "TERM"])  # TERM: also how a spot machine warns its processes
def test_a_killed_training_process(cluster, job, signal):
    victim, before = training_host(cluster.machines.hosts), Run("s3://bucket/runs/faults").metrics()
    died = time.time()
    assert "killed" in victim.ssh(f"pkill -{signal} -f '[r]ay::.*TrainWorker' && echo killed")
    job.wait_for("| val ", after=job.wait_for("workers restarted, 3 now", after=died))
    assert before and Run("s3://bucket/runs/faults").metrics()[: len(before)] == before


def wait_for_start(host, timeout=PATIENCE):
    """Wait until the autoscaler has begun a start of Ray on the host, and has left it to the host."""
    end, processes = time.time() + timeout, ""
    while time.time() < end:
        processes = host.ssh("ps -eo args")
        if "ray start" in processes and "bash --login" not in processes:
            return
        time.sleep(0.2)
    raise AssertionError(f"no start of Ray on {host.name}:\n{processes}")


def test_a_killed_host_costs_the_running_epoch_and_comes_back(cluster, job):
    victim, before, died = training_host(cluster.others), Run("s3://bucket/runs/faults").metrics(), time.time()
    victim.kill()
    restarted = job.wait_for("workers restarted, 3 now", after=died)
    victim.start()
    wait_for_start(victim)
    victim.kill()  # again, while Ray starts on it
    victim.start()
    joined = cluster.wait_for_hosts(3)
    again = job.wait_for("| val ", after=restarted)
    history = Run("s3://bucket/runs/faults").metrics()
    assert history[: len(before)] == before  # what was finished was not done again
    epoch = max(row.seconds for row in history)
    note(
        f"host killed: workers again {restarted - died:.0f} s later, the lost epoch done {again - died:.0f} s later; "
        f"the longest took {epoch:.0f} s"
    )
    note(f"the host joined again {joined:.0f} s after it was switched on")


def test_s3_that_fails_for_20_seconds(job):
    began, refused = time.time(), machines.fail_s3(20)
    while machines.fail_s3(20) == refused:  # no epoch has ended yet
        assert time.time() - began < PATIENCE
        time.sleep(0.5)
    job.wait_for("| val ", after=time.time() + 20)
    assert "workers restarted" not in "\n".join(line for when, line in job.lines if when > began)  # it waited


def test_a_host_cut_off_for_half_a_minute(cluster, job):
    began = time.time()
    cluster.others[0].cut()
    time.sleep(30)
    cluster.others[0].connect()
    again = job.wait_for("| val ", after=began + 30)
    note(f"host cut off for 30 s: the next epoch was done {again - began:.0f} s after the cut")
    cluster.wait_for_hosts(3)


def test_a_drained_host_trains_on_until_it_is_taken_away(cluster, job):
    """A spot machine: a warning, and later it is gone."""
    victim, warned = training_host(cluster.others), time.time()
    cluster.drain(victim, seconds=int(PATIENCE))
    job.wait_for("| val ", after=warned)
    before, died = Run("s3://bucket/runs/faults").metrics(), time.time()
    assert not [line for when, line in job.lines if when > warned and "workers restarted" in line]
    victim.kill()
    restarted = job.wait_for("workers restarted, 3 now", after=died)
    victim.start()
    cluster.wait_for_hosts(3)
    again = job.wait_for("| val ", after=restarted)
    assert Run("s3://bucket/runs/faults").metrics()[: len(before)] == before
    note(f"drained host killed: the lost epoch done {again - died:.0f} s later")


def test_a_killed_driver_then_a_restarted_head_and_the_same_command_with_resume_on_two_workers(cluster, job):
    assert "killed" in cluster.head.ssh("pkill -9 -f '[r]ay_jobs.train' && echo killed")
    assert job.ends() not in (0, 130), job.log
    end = time.time() + PATIENCE
    while training_hosts(cluster.machines.hosts):  # the workers end some seconds after their driver
        assert time.time() < end
        time.sleep(0.5)
    before = saved_epochs("runs/faults")
    assert 0 < len(before) < ENDLESS
    again = train(cluster, "runs/faults", ENDLESS, "--resume", workers=2)
    again.wait_for("| val ")
    cluster.head.kill()
    again.process.kill()
    cluster.close_tunnel()
    cluster.head.start()
    cluster.up()
    resumed = saved_epochs("runs/faults")
    assert len(before) < len(resumed) < ENDLESS and resumed[: len(before)] == before
    epochs = len(resumed) + 3
    again = train(cluster, "runs/faults", epochs, "--resume", workers=2)
    assert again.ends() == 0, again.log
    history = check("runs/faults", epochs)
    assert history[: len(resumed)] == resumed
    three = [row.workers for row in history].count(3)
    assert three == len(before)
    assert [row.workers for row in history] == [3] * three + [2] * (epochs - three)
    # Equal to an undisturbed training: the comparison's trial of the same seed. A repeated epoch sums its gradients in
    # another order (DDP rebuilds its buckets after a process's first step), and early in training the last digit soon
    # matters.
    whole = Run("s3://bucket/compared/trials/demo-s0").metrics()
    for name in ("train_loss", "val_loss", "lr"):
        values = [[row.to_dict()[name] for row in rows] for rows in (history[: len(whole)], whole)]
        assert values[0] == pytest.approx(values[1], rel=2e-2), name


def test_without_the_token_nothing_and_from_elsewhere_no_dashboard(cluster):
    status = "curl -s -o /dev/null -w '%{http_code}' --max-time 60"
    assert cluster.head.ssh(f"{status} http://127.0.0.1:8265/api/jobs/") == "401"
    assert cluster.head.ssh(f"{status} -H 'Authorization: Bearer {'f' * 64}' http://127.0.0.1:8265/api/jobs/") == "403"
    for host in cluster.others:
        assert host.ssh(f"{status} http://{cluster.head.address}:8265/", check=False) == "000"
    # Joining the cluster as a driver from another host, without the token.
    script = f"import ray; ray.init('{cluster.head.address}:6379', logging_level='ERROR'); print('JOINED')"
    refused = cluster.others[0].ssh(
        f'RAY_AUTH_MODE=disabled timeout 120 ~/animalclf-env/bin/python -c "{script}" 2>&1', check=False
    )
    assert "JOINED" not in refused
    for host in cluster.machines.hosts:
        note(f"{host.name} listens on: " + ", ".join(sorted(set(host.ssh("ss -ltnH | awk '{print $4}'").split()))))


def test_gradients_over_two_and_three_hosts_are_those_of_one_process(cluster):
    job = cluster.submit("gradients", folder=Path(__file__).parent)
    assert job.ends() == 0, job.log
    assert "2 hosts: the gradients agree" in job.log and "3 hosts: the gradients agree" in job.log


def test_ray_down_leaves_nothing(cluster, elastic):
    """The head is stopped by ssh, the others end when they miss it. Meanwhile the last test's training runs."""
    began = time.time()
    cluster.ray("down", "--yes", str(cluster.file))
    for host in cluster.machines.hosts:
        while "raylet/raylet" in host.ssh("ps -eo args"):
            assert time.time() - began < PATIENCE, host.name
            time.sleep(3)
    note(f"ray down: no Ray on any host after {time.time() - began:.0f} s")
    with pytest.raises((subprocess.SubprocessError, OSError)):
        cluster.ask("/api/version")
