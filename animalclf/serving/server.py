"""The server of one model: an HTTP server in a thread of this process, and its replicas."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import re
import secrets
import socket
import stat
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from animalclf.errors import UserError
from animalclf.utils.console import show_line

if TYPE_CHECKING:
    from starlette.applications import Starlette

TOKEN_VARIABLE = "ANIMALCLF_SERVE_TOKEN"
MIN_TOKEN = 16  # characters
MAX_PORT = 65_535
BACKLOG = 1024  # clients that wait to be accepted
SILENT_SECONDS = 10
STOP_SECONDS = 3  # for running requests


class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """A connection that is closed if it sends no whole request head for SILENT_SECONDS. uvicorn has no limit."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._watch()

    def _watch(self) -> None:
        asyncio.get_running_loop().call_later(SILENT_SECONDS, self._check, self.cycle)

    def _check(self, previous_request: object) -> None:
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.cycle is previous_request:
            self.transport.close()
        if not self.transport.is_closing():
            self._watch()


class Token(NamedTuple):
    """`source`: the file, variable or argument that it comes from; "" for a new one."""

    value: str
    source: str = ""


class Server:
    """The model of the run folder `run`, which answers requests at `url` until `stop` or the end of the `with` block.
    `token`: what clients send as `Authorization: Bearer TOKEN`."""

    def __init__(
        self, run: str, listener: socket.socket, app: Starlette, token: Token, stop_replicas: Callable[[], None]
    ) -> None:
        self.run, self.url, self.token, self.token_source = run, url_of(listener), *token
        self._stop_replicas = stop_replicas
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=Connection,
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                backlog=BACKLOG,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="serve", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"Server({self.url})"

    def wait(self) -> None:
        """Block until the server ends: by `stop` in another thread, or by Ctrl-C, which raises KeyboardInterrupt."""
        while self._thread.is_alive():
            self._thread.join(1)

    def stop(self) -> None:
        """Answer the running requests, for STOP_SECONDS at most, then end the server and its replicas. A second call
        does nothing."""
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS + 2)
        stop_replicas, self._stop_replicas = self._stop_replicas, lambda: None
        stop_replicas()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def listen(host: str, port: int) -> socket.socket:
    """A socket on which clients can connect. Raises UserError if the port is in use or the host is not this machine."""
    if port > MAX_PORT:
        raise UserError(f"--port {port}: the largest is {MAX_PORT}; 0: any free one")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        code = getattr(error, "errno", None) or 0  # below 0 for a host name that is not found
        reason = os.strerror(code) if code > 0 else getattr(error, "strerror", None) or str(error)
        reason = "the port is in use" if code == errno.EADDRINUSE else reason
        raise UserError(
            f"cannot listen on {host}:{port}: {reason}; name another --port (0: any free one) or --host"
        ) from error


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_private(listener: socket.socket) -> bool:
    """Whether only this machine reaches the socket."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def find_token(token: str | None, file: str | None) -> Token:
    """The token of the argument, the file or the environment variable, or a new one. Raises UserError for a short one,
    and for a file that cannot be read."""
    if token:
        found = Token(token, "the argument token")
    elif file:
        found = Token(_from_file(file), file)
    elif value := os.environ.get(TOKEN_VARIABLE, ""):
        found = Token(value, TOKEN_VARIABLE)
    else:
        return Token(secrets.token_urlsafe(24))
    if len(found.value) < MIN_TOKEN or not re.fullmatch(r"[!-~]+", found.value):
        raise UserError(
            f"{found.source}: a token has at least {MIN_TOKEN} characters, ASCII without blanks; make one with: "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return found


def _from_file(file: str) -> str:
    try:
        with open(file, encoding="utf-8") as source:
            if os.fstat(source.fileno()).st_mode & (stat.S_IRGRP | stat.S_IROTH):
                show_line(f"{file}: others on this machine can read the token; chmod 600 {file}")
            return source.read(10_000).strip()
    except (OSError, ValueError) as error:
        raise UserError(f"--token-file {file}: {getattr(error, 'strerror', None) or 'not text'}") from error
