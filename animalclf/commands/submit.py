"""`animalclf submit`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from animalclf import submit
from animalclf.commands.common import Answer, add_command

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
    submit.add_arguments(parser)


def run(arguments: argparse.Namespace) -> Answer:
    return Answer({}, submit.run(arguments))
