"""The exception for what the user can fix, and the exit codes of all commands."""

from enum import IntEnum


class UserError(Exception):
    """A request that cannot be fulfilled. The message names the file or key and what to do; commands print it without a
    traceback and exit with status 2."""


class ExitCode(IntEnum):
    """Exit status of every command."""

    SUCCESS = 0
    FAILED = 1  # a trial of a comparison
    USER_ERROR = 2
    UNREADABLE = 3
    INTERRUPTED = 130  # Ctrl-C: 128 + SIGINT
    TERMINATED = 143  # 128 + SIGTERM


def exit_code(*, failed: bool = False, unreadable: bool = False) -> ExitCode:
    """The exit code of a command that ran to its end. `failed`: some trial failed. `unreadable`: some image is
    unreadable; FAILED takes precedence."""
    if failed:
        return ExitCode.FAILED
    return ExitCode.UNREADABLE if unreadable else ExitCode.SUCCESS
