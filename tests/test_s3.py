"""Buckets on a real S3 server that fails on request: retries of transient errors, one clear message for the others."""

import os
import subprocess
import sys

import numpy as np
import pytest
import s3_server
import s3fs
from botocore.exceptions import ClientError
from moto.s3.models import s3_backends
from s3fs.errors import translate_boto_error

from animalclf.data import prepared_set
from animalclf.errors import UserError
from animalclf.prepare import task
from animalclf.utils import remote_listing, s3_errors, storage


@pytest.fixture
def server(monkeypatch):
    with s3_server.running() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # the client's own retries would only take time here
        s3fs.S3FileSystem.clear_instance_cache()
        monkeypatch.setattr(s3_errors, "MAX_PAUSE", 0.2)
        fs = storage.filesystem("s3://bucket")[0]
        fs.makedirs("bucket", exist_ok=True)  # moto's buckets live as long as the process
        for name in fs.ls("bucket"):
            fs.rm(name, recursive=True)
        yield running
        s3fs.S3FileSystem.clear_instance_cache()


def test_every_operation_retries_while_the_server_fails(server, capsys):
    storage.write_bytes("s3://bucket/a/x", b"1")
    for operation, expected in [
        (lambda: storage.read_bytes("s3://bucket/a/x"), b"1"),
        (lambda: storage.exists("s3://bucket/a/x"), True),
        (lambda: storage.write_json("s3://bucket/a/y", {"k": 2}), None),
        (lambda: storage.read_json("s3://bucket/a/y"), {"k": 2}),
        (lambda: len(remote_listing.list_files("s3://bucket/a")), 2),
        (lambda: task.read_files("s3://bucket/a", ["x"]), [b"1"]),
        (lambda: storage.remove("s3://bucket/a/y"), None),
        (lambda: storage.exists("s3://bucket/a/y"), False),
    ]:
        server.fail(times=3, status=503, code="ServiceUnavailable")
        assert operation() == expected
    server.fail(times=7, status=503, code="SlowDown")
    assert storage.read_bytes("s3://bucket/a/x") == b"1"
    assert "trying again" in capsys.readouterr().err


def test_a_write_is_repeated_if_the_answer_that_completed_it_was_lost(server):
    attempts = []

    def write():
        attempts.append(1)
        if len(attempts) == 1:  # the answer of the client's own retry
            response = {"Error": {"Code": "NoSuchUpload"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
            error = ClientError(response, "CompleteMultipartUpload")
            raise translate_boto_error(error) from error
        return "written"

    assert s3_errors.with_retries("s3://bucket/x", write) == "written" and len(attempts) == 2


def test_a_server_that_has_answered_before_is_retried_while_it_is_down(server, monkeypatch):
    import threading

    storage.write_bytes("s3://bucket/x", b"1")
    server.server.shutdown()
    server.server.server_close()
    restarted = []

    def restart():
        new = s3_server.make_server(
            "127.0.0.1", server.server.server_port, server.app, True, request_handler=s3_server.Handler
        )
        restarted.append(new)
        new.serve_forever()

    threading.Timer(4, restart).start()
    assert storage.read_bytes("s3://bucket/x") == b"1"
    restarted[0].shutdown()
    server.server.serve_forever = lambda: None
    monkeypatch.setattr(server.server, "shutdown", lambda: None)


def test_retries_end(server, monkeypatch):
    monkeypatch.setattr(s3_errors, "RETRY_SECONDS", 1.0)
    server.fail(seconds=600)
    with pytest.raises(UserError, match=r"s3://bucket/x: the storage server still fails after 1 s .*503"):
        storage.read_bytes("s3://bucket/x")


@pytest.mark.parametrize(
    "status, code, message",
    [
        (403, "AccessDenied", "access denied .*s3:ListBucket"),
        (400, "ExpiredToken", "credentials have expired"),
        (403, "InvalidAccessKeyId", "does not know these credentials"),
        (403, "SignatureDoesNotMatch", "does not know these credentials"),
        (400, "AuthorizationHeaderMalformed", "in another region .*AWS_REGION"),
        (403, "RequestTimeTooSkewed", "clock"),
    ],
)
def test_every_operation_reports_a_refusal_at_once(server, status, code, message):
    """Also those that send HEAD, whose response has no body and so no cause."""
    for operation in (
        lambda: storage.read_bytes("s3://bucket/x"),
        lambda: storage.exists("s3://bucket/x"),
        lambda: storage.write_bytes("s3://bucket/x", b"1"),
        lambda: remote_listing.list_files("s3://bucket/"),
        lambda: task.read_files("s3://bucket", ["x"]),
        lambda: prepared_set.open_prepared("s3://bucket/set"),
    ):
        server.fail(seconds=60, status=status, code=code)
        before = server.app.requests
        with pytest.raises(UserError, match=message):
            operation()
        assert server.app.requests - before < 12
        server.fail()


def test_no_bucket_no_credentials_no_server(server, monkeypatch, tmp_path):
    for operation in (
        lambda: storage.write_bytes("s3://elsewhere/x", b"1"),
        lambda: storage.read_bytes("s3://elsewhere/x"),
    ):
        with pytest.raises(UserError, match="there is no such bucket"):
            operation()
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("s3://bucket/missing")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match="no AWS credentials found"):
        storage.read_bytes("s3://bucket/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    with pytest.raises(UserError, match="AWS_ENDPOINT_URL: 'localhost:9000' is no address"):
        storage.read_bytes("s3://bucket/x")


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_credentials_and_endpoint_are_those_of_the_aws_command_line(server, tmp_path, variable):
    """A profile in a file, and an endpoint in either variable."""
    (tmp_path / "credentials").write_text("[profile]\naws_access_key_id = a\naws_secret_access_key = b\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {
        variable: server.url,
        "AWS_PROFILE": "profile",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }
    script = (
        "from animalclf.utils import storage; storage.write_bytes('s3://bucket/p', b'1'); "
        "print(storage.exists('s3://bucket/p'))"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=100
    )
    assert process.stdout == "True\n", process.stderr


def test_a_long_listing_takes_few_requests(server, monkeypatch):
    """5,000 names in 20 folders, two levels down: one request per folder, and a few to find the folders."""
    (backend,) = [account["aws"] for account in s3_backends.values() if "bucket" in account["aws"].buckets]
    names = [f"train_images/train_images/class{number % 20:02d}/{number:05d}.jpg" for number in range(5000)]
    for name in [*names, "sample.csv"]:  # without HTTP, which takes longer
        backend.put_object("bucket", f"set/{name}", b"")
    before = server.app.requests
    files = remote_listing.list_files("s3://bucket/set")
    assert sorted(path for path, _, _ in files) == sorted([*names, "sample.csv"])
    assert server.app.requests - before <= 20 + 3 and all(stamp for _, _, stamp in files)
    assert remote_listing.list_files("s3://bucket/nothing") == []


def test_right_bytes_or_a_named_error_whatever_the_server_does(server, monkeypatch, tmp_path):
    """A third of the requests fail: errors, resets before and after their effect, slow, stalled and short answers."""
    storage.write_bytes("s3://bucket/first", b"")  # a server that never answered is not retried
    monkeypatch.setattr(s3_errors, "READ_SECONDS", 0.5)
    monkeypatch.setattr(s3_errors, "WRITE_SECONDS", 2.0)
    monkeypatch.setattr(s3_errors, "RETRY_SECONDS", 20.0)
    monkeypatch.setattr(s3_server, "STALL_SECONDS", 0.8)
    s3fs.S3FileSystem.clear_instance_cache()
    generator = np.random.default_rng(0)
    server.app.fault_rate = 1 / 3
    for number in range(4):
        content = generator.bytes(int(generator.integers(1, 300_000)))
        name = f"s3://bucket/{number % 2}/{number}"
        storage.write_bytes(name, content)
        assert storage.read_bytes(name) == content and storage.size(name) == len(content)
        assert storage.read_heads("s3://bucket", [f"{number % 2}/{number}"], 100) == [content[:100]]
        assert task.read_files("s3://bucket", [f"{number % 2}/{number}", "missing"]) == [content, "file not found"]
        assert not storage.exists(f"{name}-") and storage.exists(name)
    assert len(remote_listing.list_files("s3://bucket")) == 5
    storage.remove("s3://bucket/0")
    assert sorted(path for path, _, _ in remote_listing.list_files("s3://bucket")) == ["1/1", "1/3", "first"]
    assert set(server.app.faults) == set(s3_server.FAULTS)


@pytest.mark.parametrize("fault", ["stalls", "short", "reset before", "silence"])
def test_a_server_that_never_answers_in_full_ends_in_a_named_error(server, monkeypatch, fault):
    storage.write_bytes("s3://bucket/x", bytes(1000))
    for name, value in {"READ_SECONDS": 0.2, "WRITE_SECONDS": 0.5, "RETRY_SECONDS": 0.5, "MAX_PAUSE": 0.1}.items():
        monkeypatch.setattr(s3_errors, name, value)
    monkeypatch.setattr(task, "RETRIES", 0)
    monkeypatch.setattr(s3_server, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    server.app.fault_rate = 1.0
    monkeypatch.setattr(s3_server, "FAULTS", (fault,))
    for operation in (
        lambda: storage.read_bytes("s3://bucket/x"),
        lambda: storage.write_bytes("s3://bucket/x", b"1"),
        lambda: remote_listing.list_files("s3://bucket/"),
        lambda: task.read_files("s3://bucket", ["x"]),
        lambda: prepared_set.open_prepared("s3://bucket/set"),
    ):
        with pytest.raises(UserError, match=r"s3://bucket/.*(cannot be reached|still fails)"):
            operation()


@pytest.mark.parametrize(
    ("url", "remedy"), [("s3://bucket/x", "check AWS_ENDPOINT_URL and"), ("http://host/x", "check the address and")]
)
def test_a_server_that_cannot_be_reached_has_the_remedy_of_its_kind(url, remedy):
    assert remedy in s3_errors.error_message(ConnectionError("refused"), url)
