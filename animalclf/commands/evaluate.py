"""`animalclf evaluate`."""

from __future__ import annotations

import argparse
from typing import Any

from animalclf.commands.common import add_command, prior_argument


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "evaluate",
        run,
        "Evaluate a run's best model on a labelled set: accuracy, balanced accuracy, macro F1, per class, confusion, calibration, intervals.",
        """  animalclf evaluate runs/a                                 (the validation split of its own prepared set)
  animalclf evaluate runs/a --data other_photos/            (any labelled folder or table)
  animalclf evaluate runs/a --prior uniform                 (corrected for a set where all classes are equally frequent)""",
    )
    parser.add_argument("run_folder", metavar="RUN", help="a run folder")
    parser.add_argument("--data", help="labelled pictures; default: the run's own prepared set")
    parser.add_argument("--split", default="val", choices=["train", "val", "test"], help="which split of the prepared set (default: val)")
    prior_argument(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf.inference.evaluate import evaluate, table
    from animalclf.utils.console import console

    found = evaluate(arguments.run_folder, data=arguments.data, split=arguments.split, prior=arguments.prior)
    for renderable in table(found):
        console.print(renderable)
    return found.to_dict()
