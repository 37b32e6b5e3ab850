"""The token of a Ray cluster: where it is, whether the cluster requires it, and how this process sends it.

Ray sends a token only with RAY_AUTH_MODE=token, which it reads once, when it is imported. Without, it tries to connect
to a cluster that requires one for 30 s, and logs every attempt.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from animalclf.errors import UserError
from animalclf.raycompat.patches import patch
from animalclf.utils.text import reason

if TYPE_CHECKING:
    import grpc

MODE_VARIABLE = "RAY_AUTH_MODE"
PROBE = "/ray.rpc.NodeInfoGcsService/CheckAlive"  # a request that every cluster answers
PROBE_SECONDS = 10.0  # a head on a busy machine takes seconds
# gRPC's codes if nothing answers, or another server, whose HTTP status gRPC translates.
SILENCE = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "UNKNOWN", "INTERNAL")
TLS_FILES = ("RAY_TLS_CA_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_SERVER_CERT")
WHERE = "put the cluster's into ~/.ray/auth_token, or name its file with RAY_AUTH_TOKEN_PATH"


def read_token() -> str:
    """The token from where Ray looks for it: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token; empty if
    there is none. Raises UserError for a file that cannot be read."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"].strip()
    path = os.path.expanduser(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token")
    try:
        return Path(path).read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the token cannot be read ({reason(error)}); {WHERE}") from error


def prepare_token(address: str) -> None:
    """Send the token from now on if the cluster at `address` (host:port) requires one; a cluster that requires none
    never gets it. Raises UserError for a missing or wrong token."""
    mode, token = os.environ.get(MODE_VARIABLE, ""), read_token()
    if mode != "token" and not _rejects(address, ""):
        return
    if not token or _rejects(address, token):
        raise UserError(f"the Ray cluster at {address} {'has another' if token else 'requires a'} token; {WHERE}")
    if mode != "token" and (mode or not send_token()):
        raise UserError(f"the Ray cluster at {address} requires a token; set {MODE_VARIABLE}=token")


def answers(address: str) -> bool:
    """Whether the head of a Ray cluster answers at `address` (host:port) within PROBE_SECONDS. Ray itself would try for
    minutes to join one that does not."""
    return _probe(address, "") not in SILENCE


def _rejects(address: str, token: str) -> bool:
    """Whether the cluster answers that this token (empty: no token) is not its own."""
    return _probe(address, token) == "UNAUTHENTICATED"


def _probe(address: str, token: str) -> str:
    """The name of gRPC's code of the head's answer to PROBE with this token (empty: no token)."""
    import grpc

    metadata = [("authorization", f"Bearer {token}")] if token else []
    with _channel(address) as channel:
        try:
            channel.unary_unary(PROBE)(b"", timeout=PROBE_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def _channel(address: str) -> grpc.Channel:
    """As Ray connects to `address`: with TLS if RAY_USE_TLS is set. Raises UserError for missing certificates."""
    import grpc

    options = [("grpc.enable_http_proxy", 0)]
    if os.environ.get("RAY_USE_TLS", "").lower() not in ("1", "true"):
        return grpc.insecure_channel(address, options)
    try:
        files = [Path(os.environ[name]).read_bytes() for name in TLS_FILES]
    except (KeyError, OSError) as error:
        problem = f"{error.args[0]} is not" if isinstance(error, KeyError) else f"{error.filename} cannot be read"
        raise UserError(f"RAY_USE_TLS is set, and {problem}; name the files of the Ray cluster at {address}") from error
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(*files), options)


@patch(("2.56", "2.58", "2.60"), {"ray._raylet:Config.initialize": None}, shared=True)
def send_token() -> bool:
    """Ray's client in this process, and in those that it starts, sends the token. Returns True.

    It saves no time: a cluster that requires a token works without RAY_AUTH_MODE=token.
    """
    from ray._raylet import Config  # type: ignore[attr-defined]

    os.environ[MODE_VARIABLE] = "token"
    Config.initialize("")  # reads the environment again
    return True
