"""`animalclf submit`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from animalclf.commands.common import Answer, add_command
from animalclf.errors import UserError
from animalclf.submit.checks import jobs
from animalclf.submit.connection import DASHBOARD, connect
from animalclf.submit.job import submit
from animalclf.submit.log import follow

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 90
EXAMPLES = """\
  animalclf submit train --data s3://bucket/photos --out s3://bucket/runs/a --recipe vgg16 --workers 4
  animalclf submit compare --data s3://bucket/photos --out s3://bucket/runs/c --recipes big_cnn,vgg16 --seeds 3
  animalclf submit --no-wait evaluate s3://bucket/runs/a           (submit's own flags come before the job's name)"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "submit",
        run,
        summary="Run a command on a Ray cluster: check the cluster, submit, show the log, return the job's exit "
        "status.",
        examples=EXAMPLES,
    )
    add_arguments(parser)


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


def run(arguments: argparse.Namespace) -> Answer:
    if arguments.follow:
        return Answer({}, follow(connect(arguments.address), arguments.follow))
    if not arguments.job:
        raise UserError(f"name a job: {', '.join(jobs(arguments.folder))}")
    code = submit(
        arguments.job,
        arguments.arguments,
        address=arguments.address,
        folder=arguments.folder,
        env=dict(_variable(item) for item in arguments.env),
        wait=not arguments.no_wait,
    )
    return Answer({}, code)


def _variable(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals or not name:
        raise UserError(f"--env {item}: write it as NAME=VALUE")
    return name, value
