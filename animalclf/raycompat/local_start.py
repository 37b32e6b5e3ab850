"""A local Ray for one command: it starts and stops faster, without the processes of clusters and dashboards."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from animalclf.raycompat.patches import Replacement, patch, replaced
from animalclf.utils.console import show_line
from animalclf.utils.throttle import Throttle

MEMORY_SECONDS = 60.0  # between two lines about ended workers
LOW_MEMORY = "running low on memory"  # in Ray's message
RAYS_SECONDS, START_SECONDS = 30.0, 300.0  # for its node to start: Ray's own limit, and that of this package
VERSIONS = ("2.56", "2.58", "2.60")
# Of a local Ray, in place of Ray's own values.
SYSTEM_CONFIG = {
    # Ray's start waits for the workers that it starts in advance: without end if one of them dies, or takes longer than
    # a minute on a busy machine. Without them, the first tasks start workers, and Ray replaces those that die.
    "prestart_worker_first_driver": False,
    # Ray ends a worker process after one idle second by default; starting another takes two seconds or more.
    "idle_worker_killing_time_threshold_ms": 60_000,
    # Only the dashboard uses metrics, and a local Ray has none. They take 1 % of two cores.
    "enable_metrics_collection": False,
    "task_events_report_interval_ms": 0,
    # Ray gives its workers niceness 15, so that busy neighbours on the machine slow training down.
    "worker_niceness": 0,
    # Repeats of a task whose worker Ray ends for memory, over one minute; Ray repeats it without end.
    "task_oom_retries": 6,
    # Between SIGTERM, which the processes of a local Ray ignore, and SIGKILL; by default 5 s. With Ray 2.56 the workers
    # of a stopped training would train on for so long.
    "kill_worker_timeout_milliseconds": 100,
    # Ray's node looks for its own object store before that listens, and by default looks again after a second.
    "raylet_client_connect_timeout_milliseconds": 20,
    "raylet_client_num_connect_attempts": 500,
}
# A process that does nothing until its parent, or the command (whose id is its argument), ends.
IDLE = """\
import os, sys, time
parent = os.getppid()
while os.getppid() == parent:
    os.kill(int(sys.argv[1]), 0)
    time.sleep(1)
"""


@contextmanager
def quick_start() -> Iterator[None]:
    """Apply the patches of this module within the block. Other Rays that this process starts later are not patched."""
    patches = (poll_node_start(), skip_servers(), skip_dashboard_agent(), shorten_errors())
    with replaced([replacement for replacements in patches for replacement in replacements or ()]):
        yield


@patch(
    VERSIONS, {"ray._private.services:get_node": ("gcs_address", "node_id"), "ray._private.services:GcsClient": None}
)
def poll_node_start() -> list[Replacement]:
    """Check every 0.02 s whether Ray's node is up; Ray checks once a second. Give up after five minutes, or if the
    node has ended; Ray gives up after half a minute, which a busy machine may take.

    Earns 2.5 s of the start of every command (`python -m benchmarks.stock_ray --only poll_node_start`).
    """
    from ray._private import services

    get_node = services.get_node

    def get_node_soon(gcs_address: str, node_id: str) -> Any:
        client, started = services.GcsClient(address=gcs_address), time.monotonic()
        while not client.get_all_node_info(timeout=30):
            seconds = time.monotonic() - started
            if seconds > RAYS_SECONDS and (seconds > START_SECONDS or not _raylet_runs()):
                break  # Ray raises its error
            time.sleep(0.02 if seconds < RAYS_SECONDS else 1)
        return get_node(gcs_address, node_id)

    return [(services, "get_node", get_node_soon)]


def _raylet_runs() -> bool:
    """Whether a node that this process started runs."""
    with contextlib.suppress(psutil.Error):
        children = psutil.Process().children()
        return any(child.name() == "raylet" and child.status() != psutil.STATUS_ZOMBIE for child in children)
    return False


@patch(
    VERSIONS,
    {
        "ray._private.node:Node.start_api_server": ("self", "include_dashboard", "raise_on_failure"),
        "ray._private.node:Node.start_log_monitor": ("self",),
        "ray._private.node:Node.start_monitor": ("self",),
        "ray._private.utils:get_dashboard_dependency_error": (),
    },
)
def skip_servers() -> list[Replacement]:
    """No API server (dashboard and jobs), no log monitor (it reads all logs ten times a second), no autoscaler's
    monitor (it delays the end by a second), and a node's agent without the servers for the dashboard.

    Earns 4 s of the start of every command (`python -m benchmarks.stock_ray --only skip_servers`).
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


@patch(
    ("2.60",),
    {
        "ray._private.node:Node.start_raylet": (
            "self",
            "plasma_directory",
            "fallback_directory",
            "object_store_memory",
            "use_valgrind",
            "use_profiler",
        ),
        "ray._private.services:_build_python_executable_command_memory_profileable": (
            "component",
            "session_dir",
            "unbuffered",
        ),
        "ray._private.ray_constants:PROCESS_TYPE_DASHBOARD_AGENT": None,
        "ray._raylet:persist_port": ("dir", "node_id", "port_name", "port"),
        "ray._raylet:METRICS_AGENT_PORT_NAME": None,
        "ray._raylet:METRICS_EXPORT_PORT_NAME": None,
        "ray._raylet:DASHBOARD_AGENT_LISTEN_PORT_NAME": None,
    },
)
def skip_dashboard_agent() -> list[Replacement]:
    """No agent for the dashboard: Ray's node waits until it has imported the dashboard's modules. Ray requires a
    process, so an idle one stands for it, and its ports are recorded as unused.

    Earns 0.4 s of the start of every command (`python -m benchmarks.stock_ray --only skip_dashboard_agent`).
    """
    import ray._raylet
    from ray._private import node, ray_constants, services

    raylet: Any = ray._raylet
    build_command, start_raylet = services._build_python_executable_command_memory_profileable, node.Node.start_raylet
    ports = (raylet.METRICS_AGENT_PORT_NAME, raylet.METRICS_EXPORT_PORT_NAME, raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME)

    def command(component: str, *arguments: Any, **keywords: Any) -> list[str]:
        if component == ray_constants.PROCESS_TYPE_DASHBOARD_AGENT:
            return [sys.executable, "-IS", "-c", IDLE, str(os.getpid())]
        return build_command(component, *arguments, **keywords)

    def start(self: Any, *arguments: Any, **keywords: Any) -> None:
        for name in ports:
            raylet.persist_port(self._session_dir, self._node_id, name, -1)
        start_raylet(self, *arguments, **keywords)

    return [
        (services, "_build_python_executable_command_memory_profileable", command),
        (node.Node, "start_raylet", start),
    ]


@patch(VERSIONS, {"ray._private.worker:listen_error_messages": ("worker", "threads_stopped")})
def shorten_errors() -> list[Replacement]:
    """Of the messages that Ray prints from other processes, print one line where a worker was ended for memory.

    Earns a readable console: Ray prints 60 lines for each such worker, and repeats its work.
    """
    from ray._private import worker as ray_worker

    def listen(worker: Any, threads_stopped: threading.Event) -> None:
        subscriber, is_due = worker.gcs_error_subscriber, Throttle(MEMORY_SECONDS)
        try:
            subscriber.subscribe()
            while not threads_stopped.is_set():
                _, error = subscriber.poll()
                if error and LOW_MEMORY in error["error_message"] and is_due.ready():
                    show_line("this machine is short of memory: Ray ended a worker process, and repeats its work")
        except (OSError, ConnectionError):  # Ray has ended
            return

    return [(ray_worker, "listen_error_messages", listen)]


@patch(
    VERSIONS,
    {
        "ray._private.node:Node.kill_all_processes": ("self", "check_alive", "allow_graceful", "wait"),
        "ray._private.worker:_global_node": None,
        "ray._private.ray_constants:PROCESS_TYPE_RAYLET": None,
    },
)
def end_at_once() -> None:
    """End this process's Ray by SIGKILL. Ray sends SIGTERM, which the processes of a local Ray ignore
    (cluster.start_local), and waits for a second each.

    Earns 2 s of the end of every command (`python -m benchmarks.stock_ray --only end_at_once`).
    """
    from ray._private import node, ray_constants, worker

    this_node: Any = worker._global_node

    def kill(check_alive: bool = True, allow_graceful: bool = False, wait: bool = False) -> None:
        started: list[psutil.Process] = []  # by the raylet: workers, and agents that would look for it for seconds
        for raylet in this_node.all_processes.get(ray_constants.PROCESS_TYPE_RAYLET, ()):
            with contextlib.suppress(psutil.Error):
                started += psutil.Process(raylet.process.pid).children(recursive=True)
        node.Node.kill_all_processes(this_node, check_alive=check_alive, wait=wait)
        for process in started:
            with contextlib.suppress(psutil.Error):
                process.kill()

    this_node.kill_all_processes = kill
