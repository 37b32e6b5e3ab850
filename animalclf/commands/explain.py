"""`animalclf explain`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from animalclf import api
from animalclf.commands.common import Answer, add_command, call, views_argument
from animalclf.errors import exit_code
from animalclf.utils.console import duration, show_line
from animalclf.utils.text import count_text

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 65
EXAMPLES = """\
  animalclf explain runs/a photo.jpg                      (into runs/a/explain)
  animalclf explain runs/a new_photos/ --out why/         (all images of a folder)
  animalclf explain runs/a photo.jpg --class dog          (what speaks for dog, whatever is predicted)"""
MAX_LISTED = 20  # unreadable images


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "explain",
        run,
        summary="Show why: a heat map of what speaks for the class of each image, as PNG files and a page.",
        examples=EXAMPLES,
        api_function=api.explain,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="images, or folders of them; local paths or s3://")
    parser.add_argument(
        "--class", dest="class_name", metavar="NAME", help="explain this class (default: the predicted one)"
    )
    views_argument(parser)
    parser.add_argument(
        "--out", metavar="FOLDER", help="where the PNG files, index.csv and explain.html go (default: RUN/explain)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images (default: 0, all)")


def run(arguments: argparse.Namespace) -> Answer:
    show_line(f"explaining {arguments.run}")
    result = call(api.explain, arguments)
    for image in result.unreadable[:MAX_LISTED]:
        show_line(f"unreadable: {image.path}: {image.reason}")
    if len(result.unreadable) > MAX_LISTED:
        show_line(f"and {len(result.unreadable) - MAX_LISTED:,} more; {result.index} names them")
    show_line(f"{count_text(result.images, 'image')} in {duration(result.seconds)}: {result.page}, {result.index}")
    return Answer(result.to_dict(), exit_code(unreadable=bool(result.unreadable)))
