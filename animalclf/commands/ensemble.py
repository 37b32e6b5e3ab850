"""`animalclf ensemble`."""

from __future__ import annotations

import argparse
from typing import Any

from animalclf import api
from animalclf.commands.common import UNREADABLE, add_command, call, prior_argument

ORDER = 70
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
        api.ensemble,
    )
    parser.add_argument(
        "members",
        nargs="+",
        metavar="RUN",
        help="run folders that were validated on the same pictures, or submission .csv files",
    )
    parser.add_argument("--out", help="where the ensembles go (default: runs/ensemble-<time>)")
    parser.add_argument("--method", action="append", choices=METHODS, help="repeatable (default: all)")
    parser.add_argument(
        "--data", help="unlabelled pictures to predict: each method writes predictions.parquet and submission.csv"
    )
    parser.add_argument(
        "--flips", action="store_true", help="average over each picture and its mirror image: twice the time"
    )
    prior_argument(parser)
    parser.add_argument("--sample-submission", help="check the submission's ids and classes against this CSV")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="copies of each model (default: one a GPU, or 1 on CPUs)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N unlabelled pictures")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf.report.leaderboard_render import pairs_table, table
    from animalclf.rows import VoteResult
    from animalclf.utils.console import console

    result = call(api.ensemble, arguments)
    if isinstance(result, VoteResult):
        console.print(
            f"{result.rows:,} pictures, {result.unanimous:,} unanimous, {result.ties:,} ties: {result.submission}",
            soft_wrap=True,
        )
        return result.to_dict()
    console.print(table(result.leaderboard))
    console.print(pairs_table(result.leaderboard))
    for one in result.ensembles:
        console.print(f"{one.name}: {one.submission or one.run}", soft_wrap=True)
    code = UNREADABLE if any(one.unreadable for one in result.ensembles) else 0
    return {
        "ensembles": [one.to_dict() for one in result.ensembles],
        "leaderboard": result.leaderboard.to_dict()["rows"],
        "exit_code": code,
    }
