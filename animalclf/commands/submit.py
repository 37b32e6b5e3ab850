"""`animalclf submit`."""

from __future__ import annotations

import argparse
from typing import Any

from animalclf.commands.common import add_command

ORDER = 90


def add(commands: Any) -> None:
    from animalclf.submit import add_arguments

    parser = add_command(
        commands,
        "submit",
        run,
        "Run a command on a Ray cluster: check the cluster, submit, show the log, return the job's exit status.",
        """  animalclf submit train --data s3://bucket/photos --out s3://bucket/runs/a --recipe vgg16 --workers 4
  animalclf submit compare --data s3://bucket/photos --out s3://bucket/runs/c --recipes big_cnn,vgg16 --seeds 3""",
    )
    add_arguments(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf import submit

    return {"exit_code": submit.run(arguments)}
