"""`animalclf ensemble`."""

from __future__ import annotations

import argparse
import time
from typing import Any

from animalclf.commands.common import UNREADABLE, add_command, prior_argument

METHODS = ("vote", "mean", "weighted")


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "ensemble",
        run,
        "Join several runs, or several submissions: majority vote, mean of probabilities, weights fitted on validation.",
        """  animalclf ensemble runs/big_cnn runs/vgg16 --out runs/both
  animalclf ensemble runs/c/trials/* --data competition/ --prior uniform --flips      (writes submission.csv of each method)
  animalclf ensemble best.csv second.csv third.csv --out votes/                       (a vote; ties go to the first file)""",
    )
    parser.add_argument("members", nargs="+", metavar="RUN", help="run folders that were validated on the same pictures, or submission .csv files")
    parser.add_argument("--out", help="where the ensembles go (default: runs/ensemble-<time>)")
    parser.add_argument("--method", action="append", choices=METHODS, help="repeatable (default: all)")
    parser.add_argument("--data", help="unlabelled pictures to predict: each method writes predictions.parquet and submission.csv")
    parser.add_argument("--flips", action="store_true", help="average over each picture and its mirror image: twice the time")
    prior_argument(parser)
    parser.add_argument("--sample-submission", help="check the submission's ids and classes against this CSV")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="copies of each model (default: one a GPU, or 1 on CPUs)")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N unlabelled pictures")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf.inference.ensemble import ensemble
    from animalclf.inference.vote import vote_submissions
    from animalclf.report.leaderboard import leaderboard
    from animalclf.report.leaderboard_render import pairs_table, table, write
    from animalclf.runs import open_run
    from animalclf.utils import storage
    from animalclf.utils.console import console

    out = storage.absolute(arguments.out or f"runs/ensemble-{time.strftime('%Y%m%d-%H%M%S')}")
    if all(member.endswith(".csv") for member in arguments.members):
        found = vote_submissions(arguments.members, out)
        console.print(
            f"{found.rows:,} pictures, {found.unanimous:,} unanimous, {found.ties:,} ties: {found.submission}",
            soft_wrap=True,
        )
        return found.to_dict()
    runs = [open_run(member) for member in arguments.members]
    options = {"workers": arguments.workers, "limit": arguments.limit} if arguments.data else {}
    made = ensemble(
        runs,
        out,
        methods=arguments.method or METHODS,
        data=arguments.data,
        flips=arguments.flips,
        prior=arguments.prior,
        sample_submission=arguments.sample_submission,
        **options,
    )
    board = leaderboard(runs, made)
    write(board, out)
    console.print(table(board))
    console.print(pairs_table(board))
    for one in made:
        console.print(f"{one.name}: {one.submission or one.run}", soft_wrap=True)
    code = UNREADABLE if any(one.unreadable for one in made) else 0
    return {"ensembles": [one.to_dict() for one in made], "leaderboard": board.to_dict()["rows"], "exit_code": code}
