"""`animalclf report`."""

from __future__ import annotations

import argparse
from typing import Any

from animalclf import api
from animalclf.commands.common import add_command, call

ORDER = 80


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "report",
        run,
        "Write report.html of a run, of several runs, or of a comparison: one page that opens offline, and its plots.",
        """  animalclf report runs/vgg16_pooled-...             (report.html in the run folder)
  animalclf report runs/compare-...                  (again, of a comparison folder)
  animalclf report runs/a runs/b --out both/         (side by side; validated on the same images)""",
        api.report,
    )
    parser.add_argument("folders", nargs="+", metavar="RUN", help="run folders, or one comparison folder")
    parser.add_argument("--out", help="where report.html goes (default: into the run or comparison folder)")
    parser.add_argument(
        "--reference",
        action="store_true",
        help="show the reference results of the recipes, also for other classes than the reference's",
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf.utils.console import console

    page = call(api.report, arguments)
    console.print(f"report: {page.report}", soft_wrap=True)
    return page.to_dict()
