"""A local Ray for one command: it starts and stops faster, without the processes of clusters and dashboards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from animalclf.raycompat.patches import patch

VERSIONS = ("2.56", "2.58", "2.60")
Replacement = tuple[Any, str, Any]  # a module or class, the name of its attribute, the new value


@contextmanager
def quick_start() -> Iterator[None]:
    """Apply the patches of this module within the block. Other Rays that this process starts later are not patched."""
    replacements = [*(look_for_node_often() or ()), *(without_servers() or ())]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replacements]
    _set(replacements)
    try:
        yield
    finally:
        _set(originals)


def _set(replacements: list[Replacement]) -> None:
    for owner, name, value in replacements:
        setattr(owner, name, value)


@patch(
    VERSIONS, {"ray._private.services:get_node": ("gcs_address", "node_id"), "ray._private.services:GcsClient": None}
)
def look_for_node_often() -> list[Replacement]:
    """Check every 0.02 s whether Ray's node is up; Ray checks once a second.

    Earns 2.5 s of the start of every command (`python -m benchmarks.stock_ray --only look_for_node_often`).
    """
    from ray._private import services

    get_node = services.get_node

    def get_node_soon(gcs_address: str, node_id: str) -> Any:
        client, until = services.GcsClient(address=gcs_address), time.monotonic() + 30
        while not client.get_all_node_info(timeout=30) and time.monotonic() < until:
            time.sleep(0.02)
        return get_node(gcs_address, node_id)

    return [(services, "get_node", get_node_soon)]


@patch(
    VERSIONS,
    {
        "ray._private.node:Node.start_api_server": ("self", "include_dashboard", "raise_on_failure"),
        "ray._private.node:Node.start_log_monitor": ("self",),
        "ray._private.node:Node.start_monitor": ("self",),
        "ray._private.utils:get_dashboard_dependency_error": (),
    },
)
def without_servers() -> list[Replacement]:
    """No API server (dashboard and jobs), no log monitor (it reads all logs ten times a second), no autoscaler's
    monitor (it delays the end by a second), and a node's agent without the servers for the dashboard.

    Earns 4 s of the start of every command (`python -m benchmarks.stock_ray --only without_servers`).
    """
    from ray._private import node, utils

    def no_api_server(self: node.Node, **_: Any) -> None:
        self._webui_url = ""  # Ray's value without a dashboard

    return [
        (node.Node, "start_api_server", no_api_server),
        (node.Node, "start_log_monitor", lambda self: None),
        (node.Node, "start_monitor", lambda self: None),
        # As in an installation of Ray without its dashboard.
        (utils, "get_dashboard_dependency_error", lambda: ImportError("not needed")),
    ]
