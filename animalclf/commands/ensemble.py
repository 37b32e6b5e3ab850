"""`animalclf ensemble`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from animalclf import api
from animalclf.commands.common import (
    Answer,
    add_command,
    call,
    prior_argument,
    sample_submission_argument,
    views_argument,
)
from animalclf.errors import exit_code
from animalclf.utils.console import console, show_line
from animalclf.utils.text import count_text

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 70
EXAMPLES = """\
  animalclf ensemble runs/big_cnn runs/vgg16 --out runs/both
  animalclf ensemble runs/c/trials/* --data competition/ --prior uniform --views flip     (a submission of each method)
  animalclf ensemble best.csv second.csv third.csv --out votes/                   (a vote; the first file wins ties)"""
METHODS = ("vote", "mean", "weighted")


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "ensemble",
        run,
        summary="Combine several runs or submissions: majority vote, mean of probabilities, weights fitted on "
        "validation.",
        examples=EXAMPLES,
        api_function=api.ensemble,
    )
    parser.add_argument(
        "members",
        nargs="+",
        metavar="RUN",
        help="run folders that were validated on the same images, or submission .csv files",
    )
    parser.add_argument("--out", help="where the ensembles go (default: runs/ensemble-<time>)")
    parser.add_argument("--method", action="append", choices=METHODS, help="repeatable (default: all)")
    parser.add_argument(
        "--data", help="unlabelled images to predict: each method writes predictions.parquet and submission.csv"
    )
    views_argument(parser)
    parser.add_argument(  # the older name
        "--flips", dest="views", action="store_const", const="flip", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    prior_argument(parser)
    sample_submission_argument(parser)
    parser.add_argument(
        "--workers", type=int, metavar="N", help="replicas of each model (default: one per GPU, or one per node)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N unlabelled images (default: 0, all)")


def run(arguments: argparse.Namespace) -> Answer:
    from animalclf.report.leaderboard_render import pairs_table, table
    from animalclf.rows import VoteResult

    result = call(api.ensemble, arguments)
    if isinstance(result, VoteResult):
        show_line(
            f"{count_text(result.rows, 'image')}, {result.unanimous:,} unanimous, {count_text(result.ties, 'tie')}: "
            f"{result.submission}"
        )
        return Answer(result.to_dict())
    console.print(table(result.leaderboard))
    console.print(pairs_table(result.leaderboard))
    for ensemble in result.ensembles:
        show_line(f"{ensemble.name}: {ensemble.submission or ensemble.run}")
    unreadable = any(ensemble.unreadable for ensemble in result.ensembles)
    content = {
        "ensembles": [ensemble.to_dict() for ensemble in result.ensembles],
        "leaderboard": result.leaderboard.to_dict()["rows"],
    }
    return Answer(content, exit_code(unreadable=unreadable))
