"""`animalclf report`."""

from __future__ import annotations

import argparse
from typing import Any

from animalclf.commands.common import add_command
from animalclf.errors import UserError


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "report",
        run,
        "Write report.html of a run, of several runs, or of a comparison: one page that opens offline, and its plots as PNG files.",
        """  animalclf report runs/vgg16_pooled-...             (report.html in the run folder)
  animalclf report runs/compare-...                  (again, of a comparison folder)
  animalclf report runs/a runs/b --out both/         (side by side; validated on the same pictures)""",
    )
    parser.add_argument("folders", nargs="+", metavar="RUN", help="run folders, or one comparison folder")
    parser.add_argument("--out", help="where report.html goes (default: into the run or comparison folder)")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf.report.leaderboard import leaderboard
    from animalclf.report.page import write_report
    from animalclf.rows import EnsembleResult, TrialEntry
    from animalclf.runs import Run, open_run
    from animalclf.utils import storage
    from animalclf.utils.console import console

    first = storage.absolute(arguments.folders[0])
    if len(arguments.folders) > 1 and not arguments.out:
        raise UserError("--out: name a folder for the report of several runs")
    out = storage.absolute(arguments.out or first)
    failed: list[TrialEntry] = []
    ensembles: list[EnsembleResult] = []
    if len(arguments.folders) == 1 and storage.exists(storage.join(first, "summary.json")):
        done = storage.read_json(storage.join(first, "summary.json"))
        trials = [TrialEntry.from_dict(entry) for entry in done["trials"]]
        runs = [Run(trial.run) for trial in trials if trial.state == "finished"]
        failed = [trial for trial in trials if trial.state == "failed"]
        kept = [storage.join(first, "ensemble", method, "result.json") for method in ("vote", "mean", "weighted")]
        ensembles = [EnsembleResult.from_dict(storage.read_json(path)) for path in kept if storage.exists(path)]
    else:
        runs = [open_run(folder) for folder in arguments.folders]
    finished = [one for one in runs if one.finished()]
    board = leaderboard(finished, ensembles) if finished else None
    title = runs[0].config().name if len(runs) == 1 else "Comparison"
    page = write_report(runs, out, title=title, board=board, ensembles=ensembles, failed=failed)
    console.print(f"report: {page['report']}", soft_wrap=True)
    return page
