"""A real Ray cluster for these tests: three hosts, `ray up` of examples/cluster-local.yaml, S3. Run by
`make test-cluster`, not by `make test`."""

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
    own_items = [item for item in items if Path(__file__).parent in item.path.parents]
    if not own_items:
        return
    reason = (
        machines.missing()
        if os.environ.get("ANIMALCLF_TEST_CLUSTER")
        else "three hosts and minutes: run with make test-cluster"
    )
    for item in own_items if reason else []:
        item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if NOTES:
        terminalreporter.section("measured on this machine, with its other load")
        for line in NOTES:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three hosts on which `ray up` was run, a tunnel to the head, and 120 demo images prepared on S3."""
    import boto3

    cluster = Cluster(Path(f"/var/tmp/anclf-{os.getpid()}"))
    try:
        cluster.up()
        boto3.client(
            "s3",
            endpoint_url=machines.S3,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        ).create_bucket(Bucket="bucket")
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def elastic(tmp_path_factory) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The running training of elastic_script.py, and the folder of its run and log. It needs none of the hosts, and
    continues while they stop."""
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
