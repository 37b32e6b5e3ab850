"""The command line. Results for programs go to standard output (--json), everything for people to standard error."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

import psutil

from animalclf import __version__, cluster
from animalclf.commands import command_modules
from animalclf.commands.common import Answer
from animalclf.errors import ExitCode, UserError
from animalclf.raycompat.errors import causes, is_rays, ray_problem
from animalclf.utils import caller, interrupts
from animalclf.utils.console import escape_control, show_error, show_line, show_traceback
from animalclf.utils.notify import Ending, Notifier
from animalclf.utils.redact import redact

MAX_ERROR = 500  # characters of an unexpected error in a notification
_stop_shown = threading.Event()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns an ExitCode."""
    _stop_shown.clear()
    parser, argv = build_parser(), sys.argv[1:] if argv is None else argv
    if not argv:
        parser.print_help(sys.stderr)
        return ExitCode.USER_ERROR
    arguments = parser.parse_args(argv)
    notifier, started, code = Notifier(), time.monotonic(), int(ExitCode.FAILED)
    answer, error_text = Answer({}), ""
    try:
        notifier = Notifier.parse(arguments.notify, arguments.notify_command)
        with caller.set_caller():
            answer = arguments.handler(arguments)
        interrupts.raise_swallowed()
        code = answer.exit_code
    except UserError as error:
        error_text = ray_problem(error, "") or str(error)
        show_error(error_text)
        code = ExitCode.USER_ERROR
        return code
    except KeyboardInterrupt as interrupt:
        code = _interrupted(interrupt)
        _show_stopped(code, argv)
        return code
    except Exception as error:
        error_text = f"{type(error).__name__}: {error}"[:MAX_ERROR]
        if not is_rays(error):
            raise
        error_text, code = _show_ray_error(error, resumable="resume" in arguments)
        return code
    finally:
        cluster.leave_ray(remove_logs=code in (ExitCode.SUCCESS, ExitCode.UNREADABLE))
        folder = answer.folder or getattr(arguments, "out", None) or ""
        notifier.send(
            Ending(arguments.command_name, code, time.monotonic() - started, folder, answer.headline, error_text)
        )
    return _print_result(answer, folder) if arguments.json else answer.exit_code


def run_and_exit(argv: Sequence[str] | None = None) -> NoReturn:
    """`main` as the entry point of a process.

    The process waits for its threads, the exit handlers run, and then it ends without Python's removal of all modules,
    which takes almost a second of CPU time with PyTorch and Ray.

    SIGTERM is handled like Ctrl-C. After one of them (also a second Ctrl-C, or one while Ray shuts down) the process
    does not wait for threads: Ray and imports may be at work in them. The processes of a Ray that was still starting
    end too; they would look for their Ray for a minute. One that arrives when the command has ended changes nothing but
    that the process ends at once.
    """
    sys.excepthook = show_traceback
    argv = sys.argv[1:] if argv is None else argv
    atexit.register(interrupts.ignore_interrupts)  # the first registered is the last called: Python's shutdown follows
    interrupts.handle_sigterm(partial(_give_up, argv))
    interrupts.repeat_swallowed()
    # Otherwise a thread that still runs while Ray shuts down would start another Ray.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        code = main(argv)
        interrupts.call_on_interrupt(partial(_end, code, lambda: None))
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as Python does first
    except KeyboardInterrupt as interrupt:
        code = _interrupted(interrupt)
        _show_stopped(code, argv)
    if code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
        _end(code, atexit._run_exitfuncs)
    atexit._run_exitfuncs()
    try:
        _flush()
    except (OSError, ValueError):  # nobody reads it; Python reports that
        sys.exit(code)
    os._exit(code)


def _flush() -> None:
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None if the process started without it: `>&-`
        stream.flush()


def _end(code: int, last: Callable[[], object]) -> NoReturn:
    """Call `last`, and end this process and all that it started."""
    children = psutil.Process().children(recursive=True)
    try:
        last()
        _flush()
    finally:
        for process in children:
            with contextlib.suppress(psutil.Error):
                process.kill()
        os._exit(code)


def _give_up(argv: Sequence[str]) -> NoReturn:
    """End a process whose cleanup after SIGTERM hangs, for example because its Ray was killed."""
    _end(ExitCode.TERMINATED, partial(_show_stopped, ExitCode.TERMINATED, argv))


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="animalclf",
        description="Labelled images to trained, evaluated and compared classifiers, on one machine or a Ray cluster.",
        epilog="""examples:
  animalclf demo                                            everything on drawn images, in minutes
  animalclf recipes                                         the recipes; `recipes vgg16` explains one
  animalclf prepare --data photos/ --out prepared/          check, de-duplicate and split your images
  animalclf train --data photos/ --out runs/a               train the recipe quick; prepares first if needed
  animalclf compare --data photos/ --recipes quick,vgg16_pooled          leaderboard with significance tests
  animalclf evaluate runs/a                                 accuracy with intervals, per class, confusion, calibration
  animalclf predict runs/a --data new/                      probabilities and submission.csv
  animalclf report runs/a                                   one HTML page
on a cluster:
  animalclf submit train --data s3://bucket/photos --out s3://bucket/runs/a""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(json=False, notify=None, notify_command=None)
    parser.add_argument("--version", action="version", version=f"animalclf {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in command_modules():
        command.add(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Prints wrong arguments as all other text: without secrets and control characters."""

    def error(self, message: str) -> NoReturn:
        super().error(escape_control(redact(message)))


def _print_result(answer: Answer, folder: str) -> int:
    """Print the JSON of a command that has ended. Returns its exit code; USER_ERROR if nobody reads it, or the disk is
    full."""
    try:
        print(json.dumps(answer.content, allow_nan=False, ensure_ascii=False), flush=True)
    except OSError as error:
        with open(os.devnull, "wb") as nowhere:  # takes what is left to write, which would fail again
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        rest = f"; the command has ended, its files are in {folder}" if folder else ""
        show_error(f"standard output: --json cannot be written ({error.strerror}){rest}")
        return ExitCode.USER_ERROR
    return answer.exit_code


def _interrupted(interrupt: KeyboardInterrupt) -> ExitCode:
    return ExitCode.TERMINATED if isinstance(interrupt, interrupts.Terminated) else ExitCode.INTERRUPTED


def _show_ray_error(error: Exception, resumable: bool) -> tuple[str, ExitCode]:
    """Print an error of Ray as one line, of an error in our code that ran on Ray also the traceback. Returns the line
    and the exit code."""
    remedy = "run the same command again" + (", with --resume if its run folder exists" if resumable else "")
    line, cause = ray_problem(error, remedy), causes(error)[-1]
    is_bug = not is_rays(cause) and not isinstance(cause, UserError)
    if is_bug:
        show_traceback(type(error), error, error.__traceback__)
    show_error(line)
    return line, ExitCode.FAILED if is_bug else ExitCode.USER_ERROR


def _show_stopped(code: ExitCode, argv: Sequence[str]) -> None:
    """Print once that the command `argv` was interrupted."""
    if _stop_shown.is_set():
        return
    _stop_shown.set()
    show_line(f"stopped by {'SIGTERM' if code == ExitCode.TERMINATED else 'Ctrl-C'}; nothing half-written is left")
    if {"train", "compare"} & set(argv[:1]):
        show_line("continue after the last finished epoch with the same command, --out FOLDER and --resume")
    if "demo" in argv[:1]:
        show_line("continue with the same command")


if __name__ == "__main__":
    run_and_exit()
