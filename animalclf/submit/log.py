"""The log of a job until it ends, and its exit status."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

from animalclf.errors import ExitCode, UserError
from animalclf.submit.connection import first_line
from animalclf.utils.console import console, duration, show_line
from animalclf.utils.interrupts import Terminated

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

STOPPED = 130  # exit code of a stopped job, and of a client that left after Ctrl-C
CONNECTION_TIMEOUT = 120.0  # seconds without a connection while the job runs, until that is an error
RETRY_SECONDS = 1.0  # between two requests for the log


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
                raise UserError(
                    f"job {job_id}: {first_line(error)}; `ray job list` shows the cluster's jobs"
                ) from error
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
    """Ask at the terminal whether to stop the job; False without a terminal."""
    if not sys.stdin.isatty():
        return False
    question = f"\nstop job {job_id}? y = stop it, anything else = leave it running: "
    try:
        return console.input(question, markup=False).strip().lower() in ("y", "yes")
    except (KeyboardInterrupt, EOFError):
        return False


def _follow_hint(job_id: str) -> str:
    return f"see it again with: animalclf submit --follow {job_id}"
