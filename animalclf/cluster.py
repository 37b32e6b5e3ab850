"""Joining a Ray cluster, or starting a small one on this machine; what it has; keeping Ray's chatter off the screen."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import yaml

from animalclf.errors import UserError
from animalclf.raycompat.patches import OWN
from animalclf.utils.malloc import ONE_ARENA

if TYPE_CHECKING:
    from ray.data import DataContext

_connection = ""  # the one that `ensure_ray` made, as `_current_connection` names it
_own_connection = ""  # to the Ray that `start_local` started
_environment_before: dict[str, str | None] = {}  # variables that `start_local` set, as they were
_cpus = 0  # of the Ray that `ensure_ray` started; 0 for a cluster that it joined
CPUS_FOR_DATA = 1  # logical CPUs that stay free for input tasks beside the training workers
# A resource of such a Ray: for tasks that load pictures, which would keep CPUs from the training workers that start beside them.
LOADING = "loading"
BOOTSTRAP = "~/ray_bootstrap_config.yaml"  # where `ray up` leaves its configuration on the head
# Ray ends a process that had nothing to do for a second; the next task then waits for another to start and import (two seconds and more). And what
# Ray counts and notes for its dashboard, which a local Ray does not have, takes 1 % of two cores from the training.
SYSTEM = {
    "idle_worker_killing_time_threshold_ms": 60_000,
    "enable_metrics_collection": False,
    "task_events_report_interval_ms": 0,
}

ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # how soon the end of a run and a dead worker are seen; Ray's default is 2
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",  # then it looks again at what the cluster has; see ray_trainer.START_ATTEMPTS
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a machine that is taken back is treated as one that is lost
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "10",
    "TUNE_WARN_THRESHOLD_S": "3600",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new reporter prints to the screen however quiet it is told to be
}
# Of Ray Data. A block stays whole, however large, and may take its time; its task does not look once a second, in a thread, how much memory it has.
DATA_CONTEXT = {
    "enable_progress_bars": False,
    "target_max_block_size": None,
    "memory_usage_poll_interval_s": None,
    "execution_no_progress_timeout_s": -1,
}
LOGGERS = ("ray", "ray.data", "ray.train", "ray.tune")


def ensure_ray(workers: int = 0) -> None:
    """Connect to the running cluster (RAY_ADDRESS, or one that `ray start` made on this machine), or start a local one with room for
    `workers` training workers and the input tasks beside them. Does nothing where Ray is connected already, except where that is a local
    Ray which an earlier call started with too little room: then a larger one takes its place.

    A local start counts logical CPUs generously: a training worker and input tasks must fit on any machine, or Ray Data waits for ever.
    """
    global _connection, _cpus
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    wanted = max(os.cpu_count() or 1, max(workers, 1) + CPUS_FOR_DATA)
    if ray.is_initialized():
        if "RAY_RAYLET_PID" not in os.environ and _current_connection() != _own_connection:
            # The caller has left our Ray for another, which stays as it is; a Ray worker has OWN from its raylet.
            _restore_environment()
        if not (_connected_here() and 0 < _cpus < wanted):
            return
        leave_ray()
    quiet()
    # Not address="auto": that would also join, and die with, the private cluster of another program on this machine.
    address = os.environ.get("RAY_ADDRESS") or _started_here()
    if address:
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except ConnectionError as error:
            raise UserError(
                f"the Ray cluster at {address} does not answer ({error}); start it, or leave it with `ray stop` and an empty RAY_ADDRESS"
            ) from error
    else:
        start_local(wanted)
    _connection, _cpus = _current_connection(), 0 if address else wanted


def start_local(cpus: int, **options: Any) -> None:
    """Start a small Ray of this process's own with so many logical CPUs, for one command, test or benchmark. `options`: more for ray.init."""
    global _own_connection
    import ray

    from animalclf.raycompat.local_start import quick_start

    for name, value in {**ONE_ARENA, OWN: "1"}.items():
        _environment_before.setdefault(name, os.environ.get(name))
        os.environ[name] = value
    silent = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    with quick_start():
        ray.init(
            address="local",
            num_cpus=cpus,
            resources={LOADING: max(1, cpus - 1)},
            _system_config=SYSTEM,
            **silent,
            **options,
        )
    _own_connection = _current_connection()


def _started_here() -> str | None:
    """The address of a cluster that `ray start` made on this machine, which Ray leaves in a file (see ray.init); None without one."""
    path = os.path.join(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip() or None
    except FileNotFoundError:
        return None


def leave_ray() -> None:
    """Disconnect from the cluster that this package joined, or end the Ray that it started. A Ray that the caller connected to stays."""
    global _connection
    if _connected_here():
        import ray

        ray.shutdown()
    _connection = ""
    if _environment_before and _current_connection() != _own_connection:
        _restore_environment()


def _restore_environment() -> None:
    """Set the environment variables that `start_local` changed as they were before."""
    _set_environment(_environment_before)
    _environment_before.clear()


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _connected_here() -> bool:
    """Whether `ensure_ray` made the present connection, and not the caller."""
    return bool(_connection) and _connection == _current_connection()


def _current_connection() -> str:
    """The address of the connected cluster and this process's job there; "" without a connection."""
    import ray

    if not ray.is_initialized():
        return ""
    context = ray.get_runtime_context()
    return f"{context.gcs_address} {context.get_job_id()}"


@contextmanager
def settings_restored() -> Iterator[None]:
    """Afterwards the environment variables, log levels and Ray Data settings that this module changes are as they were before."""
    variables = {name: os.environ.get(name) for name in ENVIRONMENT}
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    of_data = _data_settings()
    try:
        yield
    finally:
        _set_environment(variables)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if now := _data_settings():
            import ray.data

            for name in now:
                before = of_data[name] if of_data else getattr(ray.data.DataContext(), name)
                setattr(ray.data.DataContext.get_current(), name, before)


def _data_settings() -> dict[str, Any]:
    """This process's values of the settings in DATA_CONTEXT; none where Ray Data is not imported."""
    if "ray.data" not in sys.modules:
        return {}
    import ray.data

    context = ray.data.DataContext.get_current()
    return {
        name: getattr(context, name) for name in DATA_CONTEXT if hasattr(context, name)
    }  # older Rays do not have all of them


def data_context() -> DataContext:
    """This process's settings of Ray Data, as every execution here wants them: see DATA_CONTEXT."""
    import ray.data

    from animalclf.raycompat import data_executor

    data_executor.apply()
    quiet()  # importing ray.data set its logger up anew
    context = ray.data.DataContext.get_current()
    for name in _data_settings():
        setattr(context, name, DATA_CONTEXT[name])
    return context


def quiet() -> None:
    """Ray's own progress and log lines go to its log files, not to the screen."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)


def gpus() -> int:
    """GPUs of the connected cluster, as it is now."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def at_most() -> dict[str, float]:
    """Of each resource ("CPU", "GPU", ...) what the connected cluster has, or can have where `ray up` made it and it grows by itself. (Ray's own
    functions for this know nothing of such clusters.)"""
    import ray

    have, made_by = ray.cluster_resources(), os.path.expanduser(BOOTSTRAP)
    if os.environ.get(OWN) or not os.path.exists(made_by):
        return dict(have)
    with open(made_by, encoding="utf-8") as file:
        grown = full_size(yaml.safe_load(file))
    return {name: max(have.get(name, 0), grown.get(name, 0)) for name in {*have, *grown}}


def full_size(config: dict[str, Any]) -> dict[str, float]:
    """The most that a cluster of this `ray up` configuration can have of each resource: of that resource's best node types as many as it allows."""
    types = dict(config.get("available_node_types", {}))
    total = dict(types.pop(config.get("head_node_type"), {}).get("resources", {}))
    for name in {name for each in types.values() for name in each["resources"]}:
        left = config.get("max_workers", 0)
        for each in sorted(types.values(), key=lambda each: -each["resources"].get(name, 0)):
            count = min(left, each.get("max_workers", left))
            total[name] = total.get(name, 0) + count * each["resources"].get(name, 0)
            left -= count
    return total
