"""The one error that people see, what is wrong, where, and what to do; and the exit codes of all commands."""

from enum import IntEnum


class UserError(Exception):
    """A request that cannot be met. Its text names the file or key and the remedy; the commands print it without a
    traceback and exit with 2."""


class ExitCode(IntEnum):
    """What every command returns to the shell; `exit_code` chooses for a command that has done its work."""

    SUCCESS = 0
    FAILED = 1  # a trial of a comparison
    USER_ERROR = 2
    UNREADABLE = 3
    INTERRUPTED = 130  # Ctrl-C: 128 + SIGINT
    TERMINATED = 143  # 128 + SIGTERM


def exit_code(*, failed: bool = False, unreadable: bool = False) -> ExitCode:
    """The exit code of a command that has done its work: whether some trial `failed`, and whether some image is
    `unreadable`. A failure wins."""
    if failed:
        return ExitCode.FAILED
    return ExitCode.UNREADABLE if unreadable else ExitCode.SUCCESS
