"""A real S3 server for tests: moto, with an error switch and faults at random. In this process (`Server`), or in
another one: python tests/s3_server.py HOST PORT

`GET /fail?seconds=20&status=503&code=SlowDown&times=3` makes it answer with an error for these seconds or this
number of requests; `GET /fail` ends that. Both return the number of refused requests.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

FAULTS = ("500", "503", "reset before", "reset after", "slow", "stalls", "short", "silence")
STALL_SECONDS = 1.5


def reset(environ: dict[str, Any]) -> None:
    """End the connection by a reset."""
    connection = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("requested by the test")


def in_pieces(environ: dict[str, Any], body: bytes, fault: str) -> Iterator[bytes]:
    """A body that comes slowly, stops for STALL_SECONDS, or ends early."""
    half = len(body) // 2
    yield body[:half]
    if fault == "short":
        reset(environ)
    time.sleep(STALL_SECONDS if fault == "stalls" else 0.05)
    yield body[half:]


class FailingS3:
    """moto's application behind a switch (WSGI)."""

    def __init__(self) -> None:
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.until, self.times, self.status, self.code, self.requests, self.refused = 0.0, 0, 503, "", 0, 0
        self.chaos, self.fault_rate, self.faults = random.Random(0), 0.0, Counter[str]()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/fail":
            query = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"]))
            self.until = time.monotonic() + float(query.get("seconds", 0))
            self.times, self.status, self.code = (
                int(query.get("times", 0)),
                int(query.get("status", 503)),
                query.get("code", "SlowDown"),
            )
            start_response("200 OK", [])
            return [str(self.refused).encode()]
        self.requests += 1
        if time.monotonic() < self.until or self.times > 0:
            self.times, self.refused = self.times - 1, self.refused + 1
            error = f"<Error><Code>{self.code}</Code><Message>requested by the test: {self.code}</Message></Error>"
            text = f"<?xml version='1.0'?>{error}".encode()
            length = int(environ.get("CONTENT_LENGTH") or 0)
            environ["wsgi.input"].read(length)
            start_response(
                f"{self.status} error", [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))]
            )
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [text]
        if self.chaos.random() < self.fault_rate:
            return self._faulty(environ, start_response)
        return self.moto(environ, start_response)

    def _faulty(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """The answer with one of FAULTS. A reset may come after the request has had its effect."""
        fault = FAULTS[self.faults.total() % len(FAULTS)]
        self.faults[fault] += 1
        if fault in ("500", "503", "reset before"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            if fault == "reset before":
                reset(environ)
            start_response(f"{fault} error", [("Content-Length", "0")])
            return []
        answer: list[Any] = []
        body = b"".join(self.moto(environ, lambda *started: answer.extend(started)))
        if fault == "silence":  # the connection stays open
            raise ConnectionResetError("requested by the test")
        if fault == "reset after" or (fault == "short" and not body):
            reset(environ)
        if fault == "stalls" and not body:
            time.sleep(STALL_SECONDS)
        status, headers = answer[:2]
        start_response(status, headers)
        return in_pieces(environ, body, fault)


class Handler(MotoRequestHandler):
    def log_request(self, *arguments: Any) -> None:
        pass


class Server:
    """A running server; `app.requests` is its number of requests."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.app = FailingS3()
        self.server = make_server(host, port, self.app, True, request_handler=Handler)
        self.url = f"http://{host}:{self.server.server_port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def fail(self, seconds: float = 0, times: int = 0, status: int = 503, code: str = "SlowDown") -> None:
        query = urllib.parse.urlencode({"seconds": seconds, "times": times, "status": status, "code": code})
        urllib.request.urlopen(f"{self.url}/fail?{query}", timeout=10).read()


@contextlib.contextmanager
def running() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.server.shutdown()
        thread.join()
        moto_api_backend.reset()  # moto has its buckets in the process, not in the server


if __name__ == "__main__":
    Server(sys.argv[1], int(sys.argv[2])).server.serve_forever()
