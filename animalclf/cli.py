"""The commands. Results for machines go to standard output (--json), everything for people to standard error."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import psutil

from animalclf import cluster
from animalclf.commands import command_modules
from animalclf.errors import UserError
from animalclf.utils import caller


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit code 0 only on full success, 2 for what the user can mend, 3 where the work is done but some pictures could not be
    read, 130 after Ctrl-C."""
    arguments = parser().parse_args(argv)
    from rich.text import Text

    from animalclf.utils.console import console

    try:
        with caller.called():
            answer = arguments.handler(arguments)
    except UserError as error:
        console.print(Text.assemble(("error:", "bold red"), f" {error}"), soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print(
            "stopped by Ctrl-C; nothing half-written is left. Continue a training or comparison with the same command and --resume."
        )
        return 130
    finally:
        cluster.leave_ray()
    code = int(answer.pop("exit_code", 0))
    if arguments.json:
        print(json.dumps(answer, allow_nan=False, ensure_ascii=False), flush=True)
    return code


def run_and_exit(argv: Sequence[str] | None = None) -> NoReturn:
    """`main` as a process of its own. After Ctrl-C (also a second one, or one while Ray shuts down) what must be done at the end is done, and then
    the process is left without taking Python down in order: with threads of Ray's and of imports still at work that crashed now and then. What a Ray
    that was only starting leaves behind (its agents look for a minute why it is gone) ends too."""
    try:
        code = main(argv)
    except KeyboardInterrupt:
        code = 130
    if code == 130:
        started = psutil.Process().children(recursive=True)
        try:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            for process in started:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            os._exit(130)
    sys.exit(code)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    whole = argparse.ArgumentParser(
        prog="animalclf",
        description="Labelled pictures to trained, evaluated and compared classifiers, on one machine or a Ray cluster.",
        epilog="""examples:
  animalclf demo                                            everything on drawn demo pictures, in minutes
  animalclf recipes                                         what can be trained; `recipes vgg16` explains one
  animalclf prepare --data photos/ --out prepared/          check, de-duplicate and split your pictures
  animalclf train --data photos/ --recipe vgg16_pooled      train; prepares by itself when needed
  animalclf compare --data photos/ --recipes big_cnn,vgg16 --seeds 3     who wins, by how much, and is it real
  animalclf evaluate runs/vgg16_pooled-...                  accuracy with intervals, per class, confusion, calibration
  animalclf predict runs/vgg16_pooled-... --data new/       probabilities and submission.csv
  animalclf report runs/vgg16_pooled-...                    one page to look at
on a cluster: ray job submit --working-dir . -- python -m ray_jobs.train --data s3://bucket/photos --out s3://bucket/runs/a""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.set_defaults(json=False)
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in command_modules():
        command.add(commands)
    return whole


if __name__ == "__main__":
    run_and_exit()
