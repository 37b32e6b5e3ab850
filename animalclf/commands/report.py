"""`animalclf report`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from animalclf import api
from animalclf.commands.common import Answer, add_command, call
from animalclf.utils.console import show_line

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 80
EXAMPLES = """\
  animalclf report runs/a                            (report.html in the run folder)
  animalclf report runs/c                            (of a comparison, rewritten)
  animalclf report runs/a runs/b --out both/         (side by side; validated on the same images)"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "report",
        run,
        summary="Write report.html of a run, several runs or a comparison: one page that opens offline, and its "
        "plots as PNG.",
        examples=EXAMPLES,
        api_function=api.report,
    )
    parser.add_argument("folders", nargs="+", metavar="RUN", help="run folders, or one comparison folder")
    parser.add_argument("--out", help="where report.html goes (default: into the run or comparison folder)")
    parser.add_argument(
        "--reference",
        action="store_true",
        help="show the reference results of the recipes, also for other images than the reference's",
    )


def run(arguments: argparse.Namespace) -> Answer:
    show_line(f"writing the report of {', '.join(arguments.folders)}")
    result = call(api.report, arguments)
    show_line(f"report: {result.report}")
    return Answer(result.to_dict())
