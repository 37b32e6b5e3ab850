"""A real Ray cluster for these tests: three hosts, `ray up` of examples/cluster-local.yaml, S3. Not part of `make test`: make test-cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hosts as machines
import pytest
from helpers import tiny_prepared
from ray_cluster import NOTES, Cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mine = [item for item in items if Path(__file__).parent in item.path.parents]
    if not mine:
        return
    reason = (
        machines.missing()
        if os.environ.get("ANIMALCLF_TEST_CLUSTER")
        else "three hosts and minutes: run with make test-cluster"
    )
    for item in mine if reason else []:
        item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if NOTES:
        terminalreporter.section("measured on this machine, beside whatever else it did")
        for line in NOTES:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three hosts on which `ray up` was run, a tunnel to the head, and 120 demo pictures prepared on S3."""
    import boto3

    made = Cluster(Path(f"/var/tmp/anclf-{os.getpid()}"))
    try:
        made.up()
        boto3.client(
            "s3",
            endpoint_url=machines.S3,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        ).create_bucket(Bucket="bucket")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def elastic(tmp_path_factory) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The training of elastic_script.py, started, and the folder of its run and its log. It needs none of the hosts, and goes on while they end."""
    folder, here = tmp_path_factory.mktemp("elastic"), Path(__file__).parent
    prepared = tiny_prepared(folder / "prepared", (21, 16, 8), size=76)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here.parents[1]), str(here.parent)])}
    command = [sys.executable, str(here / "elastic_script.py"), prepared.root, str(folder / "run")]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    yield process, folder
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
