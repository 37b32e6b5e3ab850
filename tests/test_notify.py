"""Notifications at the end of a command: their content, and that a failing one changes nothing."""

from __future__ import annotations

import base64
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_folders import guesses

from animalclf import UserError, cli
from animalclf.commands import prepare, train
from animalclf.commands.common import Answer, evaluation_headline
from animalclf.errors import ExitCode
from animalclf.metrics import from_probabilities
from animalclf.utils import notify
from animalclf.utils.interrupts import Terminated
from animalclf.utils.notify import Ending, Notifier
from animalclf.utils.redact import redact_arguments

ENDING = Ending("train", ExitCode.SUCCESS, 75.4, "runs/a", "balanced accuracy 0.9333")


class Hook:
    """A local server that records requests, and answers as `self.status` and `self.delay` tell."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.status, self.delay, self.headers = 200, 0.0, {}
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.requests.append((self.path, dict(self.headers), json.loads(body)))
                time.sleep(hook.delay)
                self.send_response(hook.status)
                for name, value in hook.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/SECRETPATH"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    each = Hook()
    yield each
    each.server.shutdown()
    each.server.server_close()


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "SECONDS", 1.0)
    monkeypatch.setattr(notify, "LAST_SECONDS", 0.5)


def run_command(monkeypatch: pytest.MonkeyPatch, outcome: object, *flags: str, command: Any = train) -> int:
    """The exit code of `animalclf train` (or prepare) whose work is replaced by `outcome`, an Answer or an error."""

    def run(arguments: object) -> Answer:
        if isinstance(outcome, BaseException):
            raise outcome
        assert isinstance(outcome, Answer)
        return outcome

    monkeypatch.setattr(command, "run", run)
    name = command.__name__.rpartition(".")[2]
    return cli.main([name, "--data", "photos", "--out", "runs/a", *flags])


def test_the_webhook_gets_the_result(hook: Hook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    answer = Answer({"x": 1}, headline="balanced accuracy 0.9333", folder="/runs/a")
    assert run_command(monkeypatch, answer, "--json", "--notify", hook.url) == 0
    ((path, headers, content),) = hook.requests
    assert path == "/hook/SECRETPATH" and headers["Content-Type"] == "application/json"
    assert content["text"].startswith("animalclf train succeeded after 0 s: balanced accuracy 0.9333; /runs/a")
    expected = {"command": "train", "status": "succeeded", "exit_code": 0, "folder": "/runs/a", "error": ""}
    assert content.items() >= expected.items() and content["host"] == socket.gethostname() and content["seconds"] < 60
    out, err = capsys.readouterr()
    assert json.loads(out) == {"x": 1} and not err


@pytest.mark.parametrize(
    ("outcome", "code", "status", "error"),
    [
        (UserError("photos: no such folder or file"), 2, "failed", "photos: no such folder or file"),
        (KeyboardInterrupt(), 130, "interrupted", ""),
        (Terminated(), 143, "terminated", ""),
        (Answer({}, ExitCode.FAILED), 1, "failed", ""),
        (Answer({}, ExitCode.UNREADABLE), 3, "succeeded", ""),
        (Answer({}, 137), 137, "failed", ""),  # of a job
    ],
)
def test_every_end_is_reported(hook: Hook, monkeypatch: pytest.MonkeyPatch, outcome, code, status, error):
    assert run_command(monkeypatch, outcome, "--notify", hook.url, command=prepare) == code
    content = hook.requests[0][2]
    assert (content["command"], content["status"], content["exit_code"]) == ("prepare", status, code)
    assert content["error"] == error and content["folder"] == "runs/a"


def test_an_unexpected_error_is_reported_and_raised(hook: Hook, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(RuntimeError, match="boom"):
        run_command(monkeypatch, RuntimeError("boom"), "--notify", hook.url)
    assert hook.requests[0][2]["error"] == "RuntimeError: boom" and hook.requests[0][2]["exit_code"] == 1


@pytest.mark.parametrize("status", [500, 404, 302])
def test_an_answer_that_is_no_success_is_a_warning(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: int
):
    hook.status, hook.headers = status, {"Location": f"{hook.url}/other"}
    assert run_command(monkeypatch, Answer({}), "--notify", hook.url) == 0
    err = capsys.readouterr().err
    assert err.count("warning") == 1 and f"the server answers {status}" in err and "SECRETPATH" not in err
    assert len(hook.requests) == 1


def test_a_slow_server_is_a_warning(hook: Hook, capsys: pytest.CaptureFixture[str]):
    hook.delay = 3.0
    started = time.monotonic()
    Notifier(hook.url).send(ENDING)
    assert time.monotonic() - started < 2.5
    assert "failed" in capsys.readouterr().err


def test_a_dead_host_is_a_warning(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert run_command(monkeypatch, Answer({}), "--notify", f"http://127.0.0.1:{port}/SECRETPATH") == 0
    err = capsys.readouterr().err
    assert f"the notification of http://127.0.0.1:{port} failed (" in err and "SECRETPATH" not in err


def test_credentials_of_the_url_are_sent_and_not_shown(hook: Hook, capsys: pytest.CaptureFixture[str]):
    hook.status = 401
    Notifier(hook.url.replace("://", "://ann:pa%40ss@")).send(ENDING)
    assert hook.requests[0][1]["Authorization"] == f"Basic {base64.b64encode(b'ann:pa@ss').decode()}"
    assert "pa%40ss" not in capsys.readouterr().err


def test_secrets_are_not_sent(hook: Hook, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789abcdef")
    text = "s3://key:secret1234@bucket/x: hf_0123456789abcdef is refused"
    Notifier(hook.url).send(Ending("train", 2, 1.0, error=text))
    sent = json.dumps(hook.requests[0][2])
    assert "secret1234" not in sent and "hf_0123456789abcdef" not in sent and "is refused" in sent


@pytest.mark.parametrize("url", ["", "example.org/hook", "ftp://example.org", "http://", "http://a b/", "http://a:x/"])
def test_a_wrong_url_is_refused_before_the_work(monkeypatch: pytest.MonkeyPatch, capsys, url: str):
    assert run_command(monkeypatch, AssertionError("it has begun"), f"--notify={url}") == 2
    assert "--notify: write the URL of a webhook" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "problem"), [("", "write a command"), ("'a", "quote it"), ("no-such-x", "no such")]
)
def test_a_wrong_command_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys, command: str, problem: str
):
    assert run_command(monkeypatch, AssertionError("it has begun"), f"--notify-command={command}") == 2
    assert problem in capsys.readouterr().err


def test_the_command_gets_the_json_and_variables(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code = "import os, sys, json; print(json.load(sys.stdin)['text'], os.environ['ANIMALCLF_NOTIFY_STATUS'], sys.argv[2:], file=open(sys.argv[1], 'w'))"  # fmt: skip  # noqa: E501
    script, out = tmp_path / "hook.py", tmp_path / "out file"
    script.write_text(code)
    Notifier.parse(None, f"{sys.executable} {script} '{out}' $HOME ; echo >{tmp_path}/injected").send(ENDING)
    text = "animalclf train succeeded after 1 min 15 s: balanced accuracy 0.9333; runs/a"
    assert out.read_text() == f"{text} succeeded ['$HOME', ';', 'echo', '>{tmp_path}/injected']\n"
    assert not (tmp_path / "injected").exists(), "no shell reads the command"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import sys; print('printed'); sys.exit('no network')", "exit status 1: no network"),
        ("import time; time.sleep(60)", "no end after 1 s"),
        ("import subprocess; subprocess.run(['sleep', '60'])", "no end after 1 s"),
    ],
)
def test_a_failing_command_is_a_warning(capsys: pytest.CaptureFixture[str], code: str, problem: str):
    Notifier(command=(sys.executable, "-c", code)).send(ENDING)
    out, err = capsys.readouterr()
    assert problem in err and err.count("warning") == 1 and not out


def test_a_command_that_is_gone_is_a_warning(capsys: pytest.CaptureFixture[str]):
    Notifier(command=("/none/such",)).send(ENDING)
    assert "the notification of /none/such failed (No such file or directory)" in capsys.readouterr().err


def test_ctrl_c_ends_the_notification_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(notify, "_post", interrupted)
    Notifier("http://example.org").send(ENDING)
    assert "failed (interrupted)" in capsys.readouterr().err


def test_the_recorded_command_has_no_webhook():
    words = ["train", "--notify", "https://hooks/T/B", "--notify-command=send token", "--notif=https://x", "--out", "a"]
    assert redact_arguments(words) == ["train", "--notify", "***", "--notify-command=***", "--notif=***", "--out", "a"]
    assert redact_arguments(["--no-wait", "x", "--", "y"]) == ["--no-wait", "x", "--", "y"]


def test_the_headline_is_the_balanced_accuracy():
    labels = np.repeat([0, 1, 2], 20)
    evaluation = from_probabilities(guesses(labels, 1.0, np.random.default_rng(0)), labels, ["a", "b", "c"])
    assert evaluation_headline(evaluation).startswith("balanced accuracy 1.0000 (95 %: ")
    assert evaluation_headline(None) == ""
