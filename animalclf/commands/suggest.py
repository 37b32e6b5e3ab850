"""`animalclf suggest`."""

from __future__ import annotations

import argparse
from shlex import quote
from typing import TYPE_CHECKING

from animalclf import api
from animalclf.commands.common import Answer, add_command, call
from animalclf.errors import exit_code
from animalclf.utils.console import duration, show_line
from animalclf.utils.text import count_text

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 87
EXAMPLES = """\
  animalclf suggest runs/a --data unlabelled/                         (suggest.csv and suggest.html in runs/a/suggest)
  animalclf suggest runs/a --data unlabelled/ --count 200 --out next/
  animalclf train --data runs/a/suggest/suggest.csv --out runs/b      (after the labels)"""
MAX_LISTED = 20  # unreadable images in the output


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "suggest",
        run,
        summary="Choose the unlabelled images whose labels help most: a table to fill in, and a page to look at.",
        examples=EXAMPLES,
        api_function=api.suggest,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--data", required=True, help="a folder of unlabelled images of any depth")
    parser.add_argument("--count", type=int, metavar="N", help="images to label (default: %(default)s)")
    parser.add_argument("--out", metavar="FOLDER", help="where suggest.csv and suggest.html go (default: RUN/suggest)")


def run(arguments: argparse.Namespace) -> Answer:
    result = call(api.suggest, arguments)
    for image in result.unreadable[:MAX_LISTED]:
        show_line(f"unreadable: {image.path}: {image.reason}")
    count = len(result.suggested)
    show_line(
        f"{count:,} of {count_text(result.images, 'image')} to label, in {duration(result.seconds)}: {result.page}"
    )
    if result.duplicates:
        show_line(f"left out: {count_text(result.duplicates, 'near-duplicate')} of labelled images or of one another")
    if count < arguments.count:
        show_line(f"fewer than the {arguments.count:,} of --count: there are no more that are new")
    show_line(f"write the classes into the column label of the first {count_text(count, 'line')} of {result.table}")
    unknown = (
        "" if not result.unknown else f": perhaps {count_text(result.unknown, 'image')}, with `no` in the column known"
    )
    show_line(f"remove the lines of images that show none of the classes{unknown}")
    if result.labelled:
        show_line(f"the {result.labelled:,} labelled images follow them, so that the table is the larger training set")
    else:
        show_line("the labelled images are not in the table, because their folder is gone or in another storage")
    show_line(f"next: animalclf train --data {quote(result.table)} --out NEW_RUN")
    return Answer(result.to_dict(), exit_code(unreadable=bool(result.unreadable)))
