"""A Ray for one command on this machine: started and ended sooner, without the processes that only clusters and dashboards need."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from animalclf.raycompat.patches import patch

VERSIONS = ("2.56", "2.58", "2.60")
Replacement = tuple[Any, str, Any]  # a module or class, the name of its attribute, and what stands there instead


@contextmanager
def quick_start() -> Iterator[None]:
    """While Ray starts, everything of this module that applies; Rays that others start in this process afterwards start as ever."""
    replacements = [*(look_for_node_often() or ()), *(without_servers() or ())]
    before = [(place, name, getattr(place, name)) for place, name, _ in replacements]
    _set(replacements)
    try:
        yield
    finally:
        _set(before)


def _set(replacements: list[Replacement]) -> None:
    for place, name, value in replacements:
        setattr(place, name, value)


@patch(
    VERSIONS, {"ray._private.services:get_node": ("gcs_address", "node_id"), "ray._private.services:GcsClient": None}
)
def look_for_node_often() -> list[Replacement]:
    """Ray looks once a second whether its node is up; this, every 0.02 s.

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
    """No API server (dashboards and jobs), no log monitor (it reads all logs ten times a second, to show none), no autoscaler's monitor (at the end
    it is waited for for a second), and a node's agent without the servers that answer the dashboard.

    Earns 4 s of the start of every command (`python -m benchmarks.stock_ray --only without_servers`).
    """
    from ray._private import node, utils

    def no_api_server(self: node.Node, **_: Any) -> None:
        self._webui_url = ""  # Ray's word for it

    return [
        (node.Node, "start_api_server", no_api_server),
        (node.Node, "start_log_monitor", lambda self: None),
        (node.Node, "start_monitor", lambda self: None),
        (
            utils,
            "get_dashboard_dependency_error",
            lambda: ImportError("not wanted"),
        ),  # as where Ray is installed without its dashboard
    ]
