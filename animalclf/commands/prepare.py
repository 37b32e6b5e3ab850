"""`animalclf prepare`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from animalclf import api
from animalclf.commands.common import (
    DATA_HELP,
    Answer,
    add_command,
    call,
    corrections_argument,
    notify_arguments,
    recipe_arguments,
)
from animalclf.errors import exit_code
from animalclf.utils.console import console
from animalclf.utils.text import count_text

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 20
EXAMPLES = """\
  animalclf prepare --data photos/ --out prepared/
  animalclf prepare --data labels.csv --out s3://bucket/prepared --set data.label_column=species
  animalclf prepare --data photos/ --out prepared/ --recipe vgg16        (stored large enough for VGG16's 224 px)
  animalclf prepare --data photos/ --out prepared/ --set data.folds=5 --set data.fold=0"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "prepare",
        run,
        summary="Read every image once: verify, measure, find duplicates, split, and store them decoded and resized.",
        examples=EXAMPLES,
        api_function=api.prepare,
    )
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--out", required=True, help="folder or s3:// prefix for the prepared set")
    parser.add_argument("--force", action="store_true", help="replace a prepared set of other images or settings")
    notify_arguments(parser)
    recipe_arguments(parser)
    corrections_argument(parser)


def run(arguments: argparse.Namespace) -> Answer:
    from animalclf.prepare.problems import find_problems
    from animalclf.prepare.summary import summary

    prepared = call(api.prepare, arguments)
    problems = find_problems(prepared)
    console.print(summary(prepared, problems))
    content = {**prepared.info, "root": prepared.root, "problems": problems.to_dict()}
    images = f"{count_text(len(prepared.manifest), 'image')}, {count_text(len(prepared.classes), 'class')}"
    return Answer(content, exit_code(unreadable=bool(problems.unreadable)), images, prepared.root)
