"""One job on a running Ray cluster: checks before it is sent, its log, its true exit status, and where its results are.

Does what `ray job submit` does and more: that shows the log too, but returns 0 for a job that somebody stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from animalclf.cluster import silence_ray
from animalclf.errors import ExitCode, UserError
from animalclf.utils import storage
from animalclf.utils.console import console, duration, show_line
from animalclf.utils.interrupts import Terminated
from animalclf.utils.redact import redact

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

DASHBOARD = "http://127.0.0.1:8265"
MAX_PACKED = 10 * 2**20  # bytes; code alone takes less than a tenth of it
STOPPED = 130  # exit code of a job that somebody stopped, and of a client that left after Ctrl-C
WRITERS = ("prepare", "train", "compare", "demo")  # their default --out is in the job's copy of the code
FLAGS = ("--address", "--folder", "--env", "--no-wait", "--follow")  # of submit itself, before the job's name
CONNECTION_TIMEOUT = 120.0  # seconds without a connection while the job runs, until that is an error
RETRY_SECONDS = 1.0  # between two requests for the log
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN")


def submit(
    job: str,
    arguments: Sequence[str],
    *,
    address: str | None = None,
    folder: str = ".",
    env: dict[str, str] | None = None,
    wait: bool = True,
) -> int:
    """Run `python -m ray_jobs.<job> <arguments>` on the cluster whose dashboard is at `address` (default:
    RAY_API_SERVER_ADDRESS, or this machine's port 8265, where `ray dashboard cluster.yaml` puts it). `folder`, without
    what .gitignore and .rayignore name, becomes the job's working directory; `env`: variables of the job.

    The log goes to standard output. Returns the job's exit status: 0 only if it fully succeeded, 130 if it was
    stopped; with `wait=False` 0 as soon as it is submitted. Raises UserError for a cluster that cannot be reached,
    refuses the token or runs another Ray, for an unknown job, for arguments that would lose the results, and for a
    folder that packs too large.
    """
    _check(job, arguments, folder, env or {})
    client = connect(address)
    packed = packed_size(folder)
    entrypoint = shlex.join(["python", "-m", f"ray_jobs.{job}", *arguments])
    runtime_env: dict[str, object] = {"working_dir": str(Path(folder).resolve())}
    if env:
        runtime_env["env_vars"] = dict(env)
    job_id = client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env, metadata={"job": f"animalclf {job}"})
    size = "" if packed is None else f" ({packed / 1e6:.2g} MB of code)"
    show_line(f"job {job_id}{size}: {entrypoint}")
    if not wait:
        show_line(f"follow it with: animalclf submit --follow {job_id}")
        return 0
    code = follow(client, job_id)
    out = _option(arguments, "--out")
    if out and code not in (STOPPED, ExitCode.USER_ERROR):  # the job's own error has the remedy
        show_line(f"{'results' if code in (0, 3) else 'partial results'}: {out}")
    if code not in (0, ExitCode.USER_ERROR) and job in ("train", "compare") and out:
        show_line("continue it with the same command and --resume")
    return code


def follow(client: JobSubmissionClient, job_id: str) -> int:
    """Show the log of the job on standard output until it ends; its exit status, 130 if it was stopped. Ctrl-C asks
    whether to stop it.

    Raises UserError if the cluster has no such job, or there is no connection for two minutes.
    """
    import aiohttp
    import requests

    log, disconnected_at = _LogPrinter(), 0.0
    while True:
        try:
            try:
                if client.get_job_info(job_id).status.is_terminal():
                    log.print_rest(client.get_job_logs(job_id))
                    return _exit_status(job_id, client.get_job_info(job_id))
                if disconnected_at:
                    show_line(f"connected again after {duration(time.monotonic() - disconnected_at)}")
                    disconnected_at = 0.0
                log.tail(client, job_id)
            except (requests.exceptions.RequestException, aiohttp.ClientError) as error:
                disconnected_at = disconnected_at or time.monotonic()
                if time.monotonic() - disconnected_at > CONNECTION_TIMEOUT:
                    text = f"no connection to the cluster for {duration(CONNECTION_TIMEOUT)}; {_follow_hint(job_id)}"
                    raise UserError(f"job {job_id}: {text}") from error
                time.sleep(2)
            except RuntimeError as error:
                raise UserError(f"job {job_id}: {_short(error)}; `ray job list` shows the cluster's jobs") from error
        except KeyboardInterrupt as interrupt:
            terminated = isinstance(interrupt, Terminated)
            if terminated or not _confirm_stop(job_id):
                show_line(f"job {job_id} continues; {_follow_hint(job_id)}")
                return ExitCode.TERMINATED if terminated else STOPPED
            client.stop_job(job_id)
            show_line("stopping it ...")


class _LogPrinter:
    """Prints the log of a job to standard output, each character once, even if a connection broke in between."""

    def __init__(self) -> None:
        self.printed = 0  # characters

    def tail(self, client: JobSubmissionClient, job_id: str) -> None:
        """Print the log as it grows, until the job ends or the connection breaks."""

        async def follow_log() -> None:
            position = 0  # a new connection sends the log from its beginning
            async for chunk in client.tail_job_logs(job_id):
                position += len(chunk)
                if position > self.printed:
                    self._print(chunk[-(position - self.printed) :])

        try:
            asyncio.run(follow_log())
        except RuntimeError as error:  # Ray's error for a connection that closes before the job ends
            if "closed unexpectedly" not in str(error) and "WebSocket" not in str(error):
                raise
            time.sleep(RETRY_SECONDS)

    def print_rest(self, log: str) -> None:
        """Print what is missing of the whole `log` of a job that has ended."""
        self._print(log[self.printed :])

    def _print(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        self.printed += len(text)


def connect(address: str | None) -> JobSubmissionClient:
    """A client for the cluster at `address`. Raises UserError if nobody answers, the token is missing or wrong, or
    another Ray runs there."""
    import ray
    import requests
    from ray.job_submission import JobSubmissionClient

    silence_ray()
    address = (address or os.environ.get("RAY_API_SERVER_ADDRESS") or DASHBOARD).rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise UserError(f"--address {address}: give the dashboard's address, such as {DASHBOARD}")
    headers: dict[str, str] = {}
    try:
        headers = _authorization(address)
        version = str(requests.get(f"{address}/api/version", headers=headers, timeout=20).json()["ray_version"])
    except (requests.exceptions.RequestException, ValueError, KeyError) as error:
        raise UserError(
            f"{address}: no Ray dashboard answers there ({_short(error)}). For a cluster of `ray up`, leave "
            "`ray dashboard cluster.yaml` running in another terminal; otherwise give --address"
        ) from error
    if version != ray.__version__:
        raise UserError(
            f"{address}: the cluster runs Ray {version}, this environment Ray {ray.__version__}; install the same "
            "(constraints.txt)"
        )
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray lets it override the argument
    return JobSubmissionClient(address, headers=headers)


def _authorization(address: str) -> dict[str, str]:
    """Headers with the token if the cluster requires one; a cluster that requires none never gets it. Raises
    UserError for a missing or wrong token, requests' errors if nobody answers."""
    import requests

    token, headers = _token(), {}
    response = requests.get(f"{address}/api/jobs/", timeout=20)
    if response.status_code == 401 and token:
        headers = {"Authorization": f"Bearer {token}"}
        response = requests.get(f"{address}/api/jobs/", headers=headers, timeout=20)
    if response.status_code in (401, 403):
        state = "has another" if token else "requires a"
        raise UserError(
            f"{address}: the cluster {state} token; put the cluster's into ~/.ray/auth_token (cluster.yaml mounts "
            "yours at the cluster's start), or name its file with RAY_AUTH_TOKEN_PATH"
        )
    response.raise_for_status()
    return headers


def packed_size(folder: str = ".") -> int | None:
    """Bytes that `folder` sends; None if that is not known before it is sent (see raycompat/packing.py). Raises
    UserError, naming the largest files, if that is more than code can be."""
    from animalclf.raycompat.packing import pack

    silence_ray()
    with tempfile.TemporaryDirectory() as scratch:
        package = pack(folder, Path(scratch) / "package.zip")
        if package is None:
            return None
        size = package.stat().st_size
        if size > MAX_PACKED:
            with zipfile.ZipFile(package) as content:
                largest = sorted(content.infolist(), key=lambda entry: -entry.compress_size)[:3]
            names = ", ".join(f"{entry.filename} ({entry.compress_size / 1e6:.0f} MB)" for entry in largest)
            raise UserError(
                f"{folder}: packs to {size / 1e6:.0f} MB, more than code can be; add other files to .rayignore: {names}"
            )
    return size


def jobs(folder: str = ".") -> list[str]:
    """The jobs that the code in `folder` has: its ray_jobs/*.py."""
    names = [path.stem for path in Path(folder, "ray_jobs").glob("*.py")]
    return sorted(name for name in names if name not in ("__init__", "submit"))


def _check(job: str, arguments: Sequence[str], folder: str, env: dict[str, str]) -> None:
    if not jobs(folder):
        raise UserError(
            f"{folder}: there is no ray_jobs/ here; run this from the top of the repository, or name it with --folder"
        )
    if job not in jobs(folder):
        raise UserError(f"unknown job {job!r}; jobs: {', '.join(jobs(folder))}")
    for flag in (argument.partition("=")[0] for argument in arguments):
        if flag in FLAGS:
            raise UserError(
                f"{flag}: a flag of submit, not of {job}; write it before the job's name: "
                f"animalclf submit {flag} ... {job}"
            )
    if "--help" not in arguments and "-h" not in arguments:
        _check_outputs(job, arguments)
    for name in SECRETS:
        if name in env:
            raise UserError(
                f"--env {name}: everybody who sees the dashboard could read it; give the machines a role, or a file "
                "~/.aws/credentials"
            )
    for text in (*arguments, *(f"--env {name}={value}" for name, value in env.items())):
        if redact(text) != text:
            raise UserError(
                f"{redact(text)}: has a secret (***), and everybody who sees the dashboard could read it; "
                "give the machines a role or a file with credentials, and leave it out"
            )


def _check_outputs(job: str, arguments: Sequence[str]) -> None:
    """Raises UserError if the job would write into its own working directory."""
    required = () if job not in WRITERS else ("--data", "--out") if job == "demo" else ("--out",)
    missing = [option for option in required if not _option(arguments, option)]
    remedy = "use s3://bucket/..., or the absolute path of a folder that all machines share"
    if missing:
        raise UserError(
            f"{job} needs {' and '.join(missing)} on a cluster: the folder that the job runs in is removed after it; "
            f"{remedy}"
        )
    for option in dict.fromkeys(("--out", *required)):
        output = _option(arguments, option)
        if output and not storage.is_remote(output) and not output.removeprefix("file://").startswith(("/", "~")):
            raise UserError(
                f"{option} {output}: a relative path is in the folder that the job runs in, which is removed after it; "
                f"{remedy}"
            )


def _option(arguments: Sequence[str], name: str) -> str | None:
    for position, argument in enumerate(arguments):
        if argument == name and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


def _exit_status(job_id: str, info: JobDetails) -> int:
    """The exit status of a finished job, which is also printed."""
    status, code = str(info.status.value), info.driver_exit_code
    if status == "SUCCEEDED":
        show_line(f"job {job_id} succeeded")
        return 0
    if status == "STOPPED":
        show_line(f"job {job_id} was stopped")
        return STOPPED
    exit_code = 1 if not code else code if code > 0 else 128 - code
    reason = f": {info.message}" if info.message and not code else ""
    show_line(f"job {job_id} ended with exit code {exit_code}{reason}")
    return exit_code


def _confirm_stop(job_id: str) -> bool:
    """Whether the person at the terminal says that the job is to stop; False without a terminal."""
    if not sys.stdin.isatty():
        return False
    question = f"\nstop job {job_id}? y = stop it, anything else = leave it running: "
    try:
        return console.input(question, markup=False).strip().lower() in ("y", "yes")
    except (KeyboardInterrupt, EOFError):
        return False


def _follow_hint(job_id: str) -> str:
    return f"see it again with: animalclf submit --follow {job_id}"


def _token() -> str | None:
    """Ray's token from where Ray looks for it: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"].strip()
    path = os.path.expanduser(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token")
    try:
        return Path(path).read_text().strip() or None
    except FileNotFoundError:
        return None


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `run` reads."""
    parser.add_argument("--address", help=f"the cluster's dashboard (default: RAY_API_SERVER_ADDRESS, or {DASHBOARD})")
    parser.add_argument("--folder", default=".", help="the code to send (default: the current folder)")
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a variable of the job, e.g. AWS_ENDPOINT_URL=http://...; no secrets; repeatable",
    )
    parser.add_argument("--no-wait", action="store_true", help="return as soon as the job is submitted")
    parser.add_argument(
        "--follow", metavar="ID", help="show the log of a job that was submitted before, and return its exit status"
    )
    parser.add_argument(
        "job", nargs="?", help="prepare, train, compare, evaluate, predict, ...; the flags above come before it"
    )
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="of the job, as for `animalclf JOB`: all that follows its name"
    )


def run(arguments: argparse.Namespace) -> int:
    """Submit a job, or follow one; the exit status."""
    if arguments.follow:
        return follow(connect(arguments.address), arguments.follow)
    if not arguments.job:
        raise UserError(f"name a job: {', '.join(jobs(arguments.folder))}")
    return submit(
        arguments.job,
        arguments.arguments,
        address=arguments.address,
        folder=arguments.folder,
        env=dict(_variable(item) for item in arguments.env),
        wait=not arguments.no_wait,
    )


def _variable(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals or not name:
        raise UserError(f"--env {item}: write it as NAME=VALUE")
    return name, value
