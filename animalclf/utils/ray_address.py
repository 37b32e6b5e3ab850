"""The address of a Ray cluster: what names it, and whether its head still runs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from animalclf.errors import UserError
from animalclf.utils.console import show_line
from animalclf.utils.text import shown

ANSWER_SECONDS = 5.0  # for a head to accept a connection
FORM = "set RAY_ADDRESS to HOST:PORT of its head, on one of its machines, or to local for a Ray of this process"


def cluster_address() -> tuple[str, str]:
    """The address (host:port) of the cluster to connect to, empty if Ray is to start here, and what names it:
    RAY_ADDRESS, or the file in which Ray records the cluster that `ray start` started on this machine (also with
    RAY_ADDRESS=auto).

    Ray leaves that file behind if it is killed. So a recorded head that has ended is named in a line, and Ray starts
    here; of RAY_ADDRESS it is left to the caller. Raises UserError for an address of another form.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if address == "local":
        return "", "RAY_ADDRESS"
    if address not in ("", "auto"):
        return _checked(address, "RAY_ADDRESS"), "RAY_ADDRESS"
    path = os.path.join(temporary_folder(), "ray", "ray_current_cluster")
    try:
        recorded = Path(path).read_text("utf-8", "replace").strip()
    except FileNotFoundError:
        recorded = ""
    if recorded and has_ended(_checked(recorded, path)):
        end = "has ended: a local one is used; remove that file"
        show_line(f"the Ray at {recorded}, which `ray start` recorded in {path}, {end}")
        recorded = ""
    if address and not recorded:
        raise UserError(f"RAY_ADDRESS=auto: no cluster of `ray start` runs on this machine; {FORM}")
    return recorded, path


def temporary_folder() -> str:
    """The folder in which Ray has its own, `ray`."""
    return os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", "/tmp"))


def _checked(address: str, source: str) -> str:
    """`address` if it is HOST:PORT. Raises UserError."""
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"{source}: {shown(address)} is no Ray cluster's HOST:PORT; {FORM}")
    return address


def has_ended(address: str) -> bool:
    """Whether the head at `address` (host:port) has ended, for example because the machine was out of memory. Ray ends
    the processes that are connected to it a minute later."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, UnicodeError) as error:  # a timeout proves nothing: the network may be slow
        return isinstance(error, ConnectionRefusedError)
    return False
