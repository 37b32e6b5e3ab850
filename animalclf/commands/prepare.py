"""`animalclf prepare`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from animalclf import api
from animalclf.commands.common import DATA_HELP, UNREADABLE, Answer, add_command, call, recipe_arguments
from animalclf.utils.console import console

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 20


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "prepare",
        run,
        "Read every image once: verify, measure, find duplicates, split, and store them decoded and resized.",
        """  animalclf prepare --data photos/ --out prepared/
  animalclf prepare --data labels.csv --out s3://bucket/prepared --set data.label_column=species
  animalclf prepare --data photos/ --out prepared/ --recipe vgg16        (stored large enough for VGG16's 224 px)
  animalclf prepare --data photos/ --out prepared/ --set data.folds=5 --set data.fold=0""",
        api.prepare,
    )
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--out", required=True, help="folder or s3:// prefix for the prepared set")
    parser.add_argument("--force", action="store_true", help="replace a prepared set of other images or settings")
    recipe_arguments(parser)


def run(arguments: argparse.Namespace) -> Answer:
    from animalclf.prepare.summary import summary

    prepared = call(api.prepare, arguments)
    console.print(summary(prepared))
    return Answer({**prepared.info, "root": prepared.root}, UNREADABLE if prepared.info["bad"] else 0)
