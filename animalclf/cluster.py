"""Joining a Ray cluster, or starting a small one on this machine; what it has; keeping Ray's chatter off the screen."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import yaml

from animalclf.errors import UserError
from animalclf.raycompat.patches import OWN
from animalclf.utils.malloc import ONE_ARENA

if TYPE_CHECKING:
    from ray.data import DataContext

_joined = False
CPUS_FOR_DATA = 1  # logical CPUs that stay free for input tasks beside the training workers
# A resource of such a Ray: for tasks that load pictures, which would keep CPUs from the training workers that start beside them.
LOADING = "loading"
BOOTSTRAP = "~/ray_bootstrap_config.yaml"  # where `ray up` leaves its configuration on the head
# Ray ends a process that had nothing to do for a second; the next task then waits for another to start and import (two seconds and more). And what
# Ray counts and notes for its dashboard, which a local Ray does not have, takes 1 % of two cores from the training.
SYSTEM = {"idle_worker_killing_time_threshold_ms": 60_000, "enable_metrics_collection": False, "task_events_report_interval_ms": 0}


def ensure_ray(workers: int = 0) -> None:
    """Connect to the running cluster (RAY_ADDRESS, or one that `ray start` made on this machine), or start a local one with room for
    `workers` training workers and the input tasks beside them. Does nothing where Ray is connected already.

    A local start counts logical CPUs generously: a training worker and input tasks must fit on any machine, or Ray Data waits for ever.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "1")  # how soon the end of a run and a dead worker are seen; Ray's default is 2
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30")  # then it looks again at what the cluster has; see launch.ATTEMPTS_TO_PLACE
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a machine that is taken back is treated as one that is lost
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return
    global _joined
    _joined = True
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
        return
    start_local(max(os.cpu_count() or 1, max(workers, 1) + CPUS_FOR_DATA))


def start_local(cpus: int, **options: Any) -> None:
    """Start a small Ray of this process's own with so many logical CPUs, for one command, test or benchmark. `options`: more for ray.init."""
    import ray

    from animalclf.raycompat.local_start import quick_start

    os.environ.update({**ONE_ARENA, OWN: "1"})
    silent = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    with quick_start():
        ray.init(address="local", num_cpus=cpus, resources={LOADING: max(1, cpus - 1)}, _system_config=SYSTEM, **silent, **options)


def _started_here() -> str | None:
    """The address of a cluster that `ray start` made on this machine, which Ray leaves in a file (see ray.init); None without one."""
    path = os.path.join(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip() or None
    except FileNotFoundError:
        return None


def leave_ray() -> None:
    """Disconnect from the cluster that `ensure_ray` joined or started; a Ray that the caller had before stays."""
    global _joined
    if _joined:
        import ray

        ray.shutdown()
        os.environ.pop(OWN, None)
        _joined = False


def data_context() -> DataContext:
    """This process's settings of Ray Data, as every execution here wants them. A block stays whole, however large, and may take its time; its task
    does not look once a second, in a thread, how much memory it has."""
    import ray.data

    from animalclf.raycompat import data_executor

    data_executor.apply()
    quiet()  # importing ray.data set its logger up anew
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = None
    context.memory_usage_poll_interval_s = None
    context.execution_no_progress_timeout_s = -1
    return context


def quiet() -> None:
    """Ray's own progress and log lines go to its log files, not to the screen."""
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
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
