"""Notifications at the end of a command: a JSON POST, or a command that gets the JSON. A failing one is a warning.

The URL of a webhook is a secret itself, so that only its scheme and host are printed. The standard library does it all.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from animalclf.errors import ExitCode, UserError
from animalclf.utils.console import duration, show_line
from animalclf.utils.redact import redact

SECONDS, LAST_SECONDS = 5.0, 2.0  # for each notification; after SIGTERM, which leaves few seconds in all
STATUS: dict[int, str] = {
    ExitCode.SUCCESS: "succeeded",
    ExitCode.UNREADABLE: "succeeded",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.TERMINATED: "terminated",
}
VARIABLE = "ANIMALCLF_NOTIFY_"  # prefix of the command's environment variables


@dataclass(frozen=True)
class Ending:
    """How a command ended. The keys of the JSON are these fields, `status`, `host` and `text`, one line of all."""

    command: str
    exit_code: int
    seconds: float
    folder: str = ""
    """Of the run, the comparison, the prepared set or the predictions."""
    result: str = ""
    """In one line, for example the balanced accuracy with its interval."""
    error: str = ""

    def content(self) -> dict[str, Any]:
        """The JSON, without secrets."""
        status = STATUS.get(self.exit_code, "failed")  # a job may end with any exit code
        about = "; ".join(text for text in (self.result, self.error, self.folder) if text)
        text = f"animalclf {self.command} {status} after {duration(self.seconds)}" + (f": {about}" if about else "")
        values = asdict(self) | {"status": status, "host": socket.gethostname(), "text": text}
        return {name: redact(value) if isinstance(value, str) else value for name, value in values.items()}


@dataclass(frozen=True)
class Notifier:
    """Where the end of a command is reported; nowhere if both are empty."""

    url: str = ""
    command: tuple[str, ...] = ()

    @classmethod
    def parse(cls, url: str | None, command: str | None) -> Notifier:
        """Of the flags --notify and --notify-command. Raises UserError for a URL that is not http(s)://HOST..., and for
        a command that is not on this machine."""
        return cls(_checked_url(url) if url is not None else "", _words(command) if command is not None else ())

    def send(self, ending: Ending) -> None:
        """Report the end. Every failure, also Ctrl-C meanwhile, is one line; nothing is raised."""
        content = ending.content()
        limit = LAST_SECONDS if ending.exit_code == ExitCode.TERMINATED else SECONDS
        if self.url:
            _warn_of(_host(self.url), lambda: _post(self.url, content, limit))
        if self.command:
            _warn_of(self.command[0], lambda: _run(self.command, content, limit))


def _warn_of(name: str, action: Callable[[], str]) -> None:
    """Print the problem that `action` returns, if there is one."""
    try:
        problem = action()
    except KeyboardInterrupt:
        problem = "interrupted"
    if problem:
        show_line(f"warning: the notification of {name} failed ({problem}); the command is not affected")


def _checked_url(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
        valid &= url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        valid = False
    if not valid:
        raise UserError("--notify: write the URL of a webhook, as in --notify https://example.org/hook")
    return url


def _words(command: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise UserError(f"--notify-command: cannot be split into words ({error}); quote it as for a shell") from error
    if not words:
        raise UserError("--notify-command: write a command, as in --notify-command 'notify-send done'")
    if shutil.which(words[0]) is None:
        raise UserError(
            f"--notify-command: {words[0]}: no such command on this machine; it is no line of a shell: for pipes and "
            "variables write --notify-command 'sh -c \"...\"'"
        )
    return words


def _host(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """A redirected POST becomes a GET without content: the redirection is an error."""


def _post(url: str, content: dict[str, Any], limit: float) -> str:
    """POST the JSON. Returns what went wrong, or "". In a thread, because a server may answer a byte at a time."""
    problems = ["no answer"]

    def post() -> None:
        problems.append(_answer(url, content, limit))

    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    thread.join(limit)
    return problems[-1]


def _answer(url: str, content: dict[str, Any], limit: float) -> str:
    parts = urllib.parse.urlsplit(url)
    user, _, address = parts.netloc.rpartition("@")
    headers = {"Content-Type": "application/json", "User-Agent": "animalclf"}
    if user:
        credentials = urllib.parse.unquote(user).encode()
        headers["Authorization"] = f"Basic {base64.b64encode(credentials).decode()}"
    plain = urllib.parse.urlunsplit(parts._replace(netloc=address, fragment=""))
    request = urllib.request.Request(plain, json.dumps(content).encode(), headers, method="POST")
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=limit):
            return ""
    except urllib.error.HTTPError as error:
        return f"the server answers {error.code}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return str(getattr(error, "reason", "") or error or type(error).__name__)


def _run(words: tuple[str, ...], content: dict[str, Any], limit: float) -> str:
    """Run the command with the JSON on standard input. Returns what went wrong, or ""."""
    variables = {f"{VARIABLE}{name.upper()}": str(value).replace("\0", "") for name, value in content.items()}
    with tempfile.TemporaryFile() as stderr:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, **variables},
                start_new_session=True,
            )
        except OSError as error:
            return error.strerror or str(error)
        try:
            process.communicate(json.dumps(content).encode(), timeout=limit)
        except subprocess.TimeoutExpired:
            return f"no end after {limit:.0f} s"
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            stderr.seek(0)
            lines = stderr.read().decode(errors="replace").strip().splitlines()
            return f"exit status {process.returncode}" + (f": {lines[-1][:200]}" if lines else "")
    return ""
