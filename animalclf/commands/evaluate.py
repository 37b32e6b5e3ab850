"""`animalclf evaluate`."""

from __future__ import annotations

import argparse
from typing import Any

from animalclf import api
from animalclf.commands.common import add_command, call, prior_argument

ORDER = 50


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "evaluate",
        run,
        "Evaluate a run's best model on a labelled set: accuracy, balanced accuracy, macro F1, per class, confusion, calibration, intervals.",
        """  animalclf evaluate runs/a                                 (the validation split of its own prepared set)
  animalclf evaluate runs/a --data other_photos/            (any labelled folder or table)
  animalclf evaluate runs/a --prior uniform                 (corrected for a set where all classes are equally frequent)""",
        api.evaluate,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--data", help="labelled pictures; default: the run's own prepared set")
    parser.add_argument(
        "--split", choices=["train", "val", "test"], help="which split of the prepared set (default: val)"
    )
    prior_argument(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf.inference.evaluate import table
    from animalclf.utils.console import console

    result = call(api.evaluate, arguments)
    for renderable in table(result):
        console.print(renderable)
    return result.to_dict()
