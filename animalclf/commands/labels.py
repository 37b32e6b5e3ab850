"""`animalclf labels`."""

from __future__ import annotations

import argparse
from shlex import quote
from typing import TYPE_CHECKING

from animalclf import api
from animalclf.commands.common import Answer, add_command, call
from animalclf.utils.console import console, duration, show_line
from animalclf.utils.text import count_text

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 86
EXAMPLES = """\
  animalclf labels runs/a                                             (labels.csv and labels.html in runs/a/labels)
  animalclf labels runs/a --count 200 --out check/
  animalclf train --data photos/ --corrections runs/a/labels/labels.csv --out runs/b     (after the decisions)"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "labels",
        run,
        summary="List the images whose labels are probably wrong: a table to decide in, and a page to look at.",
        examples=EXAMPLES,
        api_function=api.labels,
    )
    parser.add_argument(
        "run", metavar="RUN", help="a run folder of a finished training, with --folds or with a frozen base"
    )
    parser.add_argument("--out", metavar="FOLDER", help="where labels.csv and labels.html go (default: RUN/labels)")
    parser.add_argument(
        "--count",
        type=int,
        metavar="N",
        help="list N of the images of which another class is more probable (default: one and a half times the "
        "estimated number of wrong labels, at least 20)",
    )


def run(arguments: argparse.Namespace) -> Answer:
    from animalclf.labelling.labels import worst_table

    result = call(api.labels, arguments)
    show_line(f"{count_text(result.images, 'image')}, judged by {result.origin}, in {duration(result.seconds)}")
    show_line(f"wrong labels: about {result.estimated:,}; listed: {result.listed:,}, {result.page}")
    if result.contradictory:
        show_line(f"groups of near-duplicates with different labels: {result.contradictory:,}, listed too")
    if result.listed:
        console.print(worst_table(result))
        show_line("next: write keep, relabel or drop into the column `decision`, and train again with")
        show_line(f"  --corrections {quote(result.table)}")
    return Answer(result.to_dict())
