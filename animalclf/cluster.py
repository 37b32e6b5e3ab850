"""The Ray cluster: connect to one or start a local one, and Ray's log output."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from animalclf.errors import UserError
from animalclf.raycompat.auth_token import answers, prepare_token
from animalclf.raycompat.errors import joining_problem, named_start_errors
from animalclf.raycompat.patches import OWN_RAY_VARIABLE
from animalclf.raycompat.recorded import recorded_without_secrets
from animalclf.raycompat.signals import kept_handler
from animalclf.raycompat.train_controller import STRUCTURED_LOGGING
from animalclf.utils.console import show_line
from animalclf.utils.environment import restored, set_variables
from animalclf.utils.interrupts import blocked_sigterm, delayed_interrupt, own_sigterm
from animalclf.utils.lasting_thread import in_lasting_thread
from animalclf.utils.process_variables import process_variables
from animalclf.utils.ray_address import cluster_address, has_ended, temporary_folder
from animalclf.utils.shared_scope import SharedScope
from animalclf.utils.writable import missing_folders, remove_empty

if TYPE_CHECKING:
    from ray.data import DataContext

_connection = ""  # result of `_current_connection` after `ensure_ray` connected
_session = ""  # Ray's folder of logs and sockets of the Ray that `start_local` started
_own_connection = ""  # result of `_current_connection` after `start_local` started Ray
_environment_before: dict[str, str | None] = {}  # original values of the variables that `start_local` sets
_cpus = 0  # logical CPUs of the Ray that `ensure_ray` started; 0 if it connected to a running cluster
_left = threading.Event()  # set when this process leaves the Ray of `_connection`
WATCH_SECONDS = 5.0  # between two looks at whether that Ray still runs
_connecting = threading.Lock()  # two threads would start two Rays, which Ray refuses
CPUS_FOR_DATA = 1  # logical CPUs for input tasks, in addition to those of the training workers
# A custom resource of a local Ray, requested by tasks that load images. If they requested CPUs, they would delay the
# start of the training workers.
LOADING_RESOURCE = "loading"
ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # delay until a dead worker or the end of a run is noticed; default 2
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",  # then the cluster is checked again; see ray_trainer.START_ATTEMPTS
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a preempted machine is treated as a lost one
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "10",
    "TUNE_WARN_THRESHOLD_S": "3600",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new reporter cannot be silenced
}
# Set by PyTorch's compiler and tensorboardX at their import, and for Ray Train's controller.
LIBRARY_VARIABLES = ("TORCHINDUCTOR_CACHE_DIR", "CRC32C_SW_MODE", STRUCTURED_LOGGING)
DATA_SETTINGS: dict[str, object] = {
    "enable_progress_bars": False,
    "target_max_block_size": None,  # do not split blocks
    "memory_usage_poll_interval_s": None,  # do not start a thread per task that measures its memory
    "execution_no_progress_timeout_s": -1,
}
LOGGERS = ("ray", "ray.data", "ray.train", "ray.tune")


def ensure_ray(workers: int = 0) -> None:
    """Connect to the running cluster (RAY_ADDRESS, or one that `ray start` started on this machine), or start a local
    Ray (also with RAY_ADDRESS=local) with room for `workers` training workers and their input tasks. If Ray is already
    connected, does nothing, unless ours has ended or is local and has too few CPUs: then another replaces it.

    A local Ray may have more logical CPUs than the machine: if the training workers and input tasks did not fit, Ray
    Data would wait indefinitely. Raises UserError if the cluster does not answer, or requires a token that is not here.
    """
    global _connection, _cpus, _left
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    cpus = max(os.cpu_count() or 1, max(workers, 1) + CPUS_FOR_DATA)
    with delayed_interrupt():
        import ray  # noqa: F401
    with _connecting:
        if _is_usable(cpus):
            return
        leave_ray()
        silence_ray()
        # Not address="auto": that also joins the private cluster of another program, which ends with that program.
        address, source = cluster_address()
        with own_sigterm() as own, kept_handler(own):
            if address:
                _join(address, source)
                cpus = 0
            else:
                start_local(cpus)
        _connection, _cpus, _left = _current_connection(), cpus, threading.Event()
        threading.Thread(target=_watch, args=(_connection, _left), daemon=True).start()


def _watch(connection: str, left: threading.Event) -> None:
    """Print a line if the head of `connection` ends before this process has `left` it: a minute later Ray ends this
    process, without an exception."""
    address = connection.split()[0]
    while not left.wait(WATCH_SECONDS):
        # Twice, because a head may refuse a connection while it restarts.
        if has_ended(address) and not left.wait(WATCH_SECONDS / 5) and has_ended(address):
            if _current_connection() == connection:
                show_line(
                    f"the Ray at {address} has ended, and ends this process within a minute; then run the same command "
                    "again (--resume continues a run)"
                )
            return


def is_local() -> bool:
    """Whether the Ray that `ensure_ray` connects to is a local one, of this machine and this package."""
    import ray

    return bool(os.environ.get(OWN_RAY_VARIABLE)) if ray.is_initialized() else not cluster_address()[0]


def _is_usable(cpus: int) -> bool:
    """Whether Ray is connected: the caller's, or ours if it has not ended and has `cpus` CPUs or is a cluster."""
    import ray

    if not ray.is_initialized():
        return False
    if "RAY_RAYLET_PID" not in os.environ and _current_connection() != _own_connection:
        # The caller left our Ray and connected to another one. (A Ray worker inherits OWN_RAY_VARIABLE.)
        _restore_environment()
    return not _connected_here() or not (0 < _cpus < cpus or has_ended(_connection.split()[0]))


def _join(address: str, source: str) -> None:
    """Connect to the cluster at `address`, which `source` names. Raises UserError."""
    import ray

    start = "set RAY_ADDRESS=local to use a local Ray"
    if not answers(address):
        other = "start it" if source == "RAY_ADDRESS" else "start it again, remove that file"
        raise UserError(f"no Ray answers at {address}, the cluster that {source} names; {other}, or {start}")
    prepare_token(address)
    try:
        with recorded_without_secrets():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # Ray raises RuntimeError, ValueError, ConnectionError and Exception
        raise UserError(
            f"the Ray at {address} ({source}) cannot be used: {joining_problem(error)}, or {start}"
        ) from error
    show_line(f"using the Ray at {address} ({source})")


def start_local(cpus: int, **options: Any) -> None:
    """Start a local Ray with `cpus` logical CPUs for this process (a command, test or benchmark). `options`: further
    arguments of ray.init.

    `timeout`, systemd and Slurm send SIGTERM to every process of a command. Ray's ignore it, so that this process can
    end what it does there, and then Ray.
    """
    global _own_connection, _session
    import ray

    from animalclf.raycompat.local_start import SYSTEM_CONFIG, end_at_once, quick_start

    for name, value in {**process_variables(), OWN_RAY_VARIABLE: "1"}.items():
        _environment_before.setdefault(name, os.environ.get(name))
        os.environ[name] = value

    def start() -> Any:
        with quick_start(), recorded_without_secrets(), blocked_sigterm(), named_start_errors():
            return ray.init(
                address="local",
                num_cpus=cpus,
                # Ray starts as many processes at a time as there are CPUs. Loading tasks leave two of them for the
                # mailbox of a training and its worker, which would otherwise wait for the start of another process.
                resources={LOADING_RESOURCE: max(1, cpus - 2)},
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _system_config=SYSTEM_CONFIG,
                **options,
            )

    made = missing_folders(temporary_folder())
    try:
        context = in_lasting_thread(start)
    except BaseException as error:
        _restore_environment()
        if made and isinstance(error, UserError):  # Ray could not use its folder
            shutil.rmtree(made[0], ignore_errors=True)
            remove_empty(made[1:])
        raise
    end_at_once()
    _session = context.address_info["session_dir"]
    _own_connection = _current_connection()


def leave_ray(*, remove_logs: bool = True) -> None:
    """Disconnect from the cluster that this package connected to, or stop the Ray that it started. Does not close a
    connection that the caller opened. `remove_logs`: remove the folder of the Ray that is stopped, which Ray never
    does."""
    global _connection
    if _connected_here():
        import ray

        own = _connection == _own_connection
        _left.set()
        ray.shutdown()
        if own and remove_logs:
            shutil.rmtree(_session, ignore_errors=True)
    _connection = ""
    if _environment_before and _current_connection() != _own_connection:
        _restore_environment()


def _restore_environment() -> None:
    """Set the environment variables that `start_local` changed to their original values."""
    set_variables(_environment_before)
    _environment_before.clear()


def _connected_here() -> bool:
    """Whether `ensure_ray`, not the caller, opened the current connection."""
    return bool(_connection) and _connection == _current_connection()


def _current_connection() -> str:
    """The address of the connected cluster and the id of this process's Ray job; empty without a connection."""
    import ray

    if not ray.is_initialized():
        return ""
    context = ray.get_runtime_context()
    return f"{context.gcs_address} {context.get_job_id()}"


def restore_settings() -> AbstractContextManager[None]:
    """Restore, after the block, the environment variables, log levels and Ray Data settings that this module and the
    libraries set: after the last one of blocks in several threads."""
    return _restored.entered()


@contextmanager
def _restored_settings() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    data_settings = _data_settings()
    try:
        with restored({*ENVIRONMENT, *LIBRARY_VARIABLES}):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if current := _data_settings():
            import ray.data

            defaults = ray.data.DataContext()
            for name in current:
                before = data_settings[name] if data_settings else getattr(defaults, name)
                setattr(ray.data.DataContext.get_current(), name, before)


_restored = SharedScope(_restored_settings)


def _data_settings() -> dict[str, object]:
    """This process's values of the settings in DATA_SETTINGS; empty if Ray Data is not imported."""
    if "ray.data" not in sys.modules:
        return {}
    import ray.data

    context = ray.data.DataContext.get_current()
    return {name: getattr(context, name) for name in DATA_SETTINGS if hasattr(context, name)}  # depends on the version


def configure_ray_data() -> DataContext:
    """Apply DATA_SETTINGS and the patches of Ray Data's executor to this process. Returns its DataContext."""
    import ray.data

    from animalclf.raycompat import data_executor

    data_executor.apply()
    silence_ray()  # importing ray.data resets its logger
    context = ray.data.DataContext.get_current()
    for name in _data_settings():
        setattr(context, name, DATA_SETTINGS[name])
    return context


def silence_ray() -> None:
    """Print only errors of Ray to the console; its log files still have everything. Ray Data raises its errors, too."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL if name == "ray.data" else logging.ERROR)
