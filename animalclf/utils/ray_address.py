"""The address of a Ray cluster: what names it, and whether its head still runs."""

from __future__ import annotations

import os
import socket

ANSWER_SECONDS = 5.0  # for a head to accept a connection


def cluster_address() -> tuple[str, str]:
    """The address of the cluster to connect to, empty if Ray is to start here, and what names it: RAY_ADDRESS, or the
    file in which Ray records the cluster that `ray start` started on this machine."""
    if address := os.environ.get("RAY_ADDRESS", ""):
        return "" if address == "local" else address, "RAY_ADDRESS"
    path = os.path.join(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip(), path
    except FileNotFoundError:
        return "", path


def has_ended(address: str) -> bool:
    """Whether the head at `address` (host:port) has ended, for example because the machine was out of memory. Ray ends
    the processes that are connected to it a minute later."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:  # a timeout proves nothing: the network may be slow
        return isinstance(error, ConnectionRefusedError)
    return False
