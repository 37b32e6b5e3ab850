"""`animalclf evaluate`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from animalclf import api
from animalclf.commands.common import Answer, add_command, call, prior_argument, table_arguments, views_arguments
from animalclf.errors import exit_code
from animalclf.utils.console import console, show_line

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 50
EXAMPLES = """\
  animalclf evaluate runs/a                                 (the validation split of the run's prepared set)
  animalclf evaluate runs/a --data other_photos/            (any labelled folder or table)
  animalclf evaluate runs/a --data labels.csv --format csv         (a table with the columns path and label)
  animalclf evaluate runs/a --prior uniform                 (corrected for equally frequent classes)"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "evaluate",
        run,
        summary="Evaluate a run's best model on labelled images: metrics with intervals, per class, confusion, "
        "calibration.",
        examples=EXAMPLES,
        api_function=api.evaluate,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--data", help="labelled images, or a prepared set (default: the run's own prepared set)")
    parser.add_argument(
        "--split", choices=["train", "val", "test"], help="which split of the prepared set (default: val)"
    )
    prior_argument(parser)
    views_arguments(parser)
    table_arguments(parser)
    parser.add_argument(
        "--out", metavar="FOLDER", help="where the result and the probabilities go (default: RUN/predictions)"
    )


def run(arguments: argparse.Namespace) -> Answer:
    from animalclf.inference.evaluate import table

    show_line(f"evaluating {arguments.run}")
    result = call(api.evaluate, arguments)
    for renderable in table(result):
        console.print(renderable)
    return Answer(result.to_dict(), exit_code(unreadable=bool(result.unreadable)))
