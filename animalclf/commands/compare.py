"""`animalclf compare`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from animalclf import api
from animalclf.commands.common import (
    DATA_HELP,
    UNREADABLE,
    add_command,
    call,
    limit_argument,
    prior_argument,
    set_argument,
)
from animalclf.config import assignment
from animalclf.utils.text import parse_list

if TYPE_CHECKING:
    from animalclf.rows import ComparisonResult

ORDER = 40


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "compare",
        run,
        "Train several recipes, seeds or settings on the same pictures; end with a leaderboard, an ensemble and a report.",
        """  animalclf compare --data photos/ --recipes big_cnn,big_cnn_balanced,vgg16 --seeds 3
  animalclf compare --data photos/ --recipes vgg16_pooled --grid optim.lr=1e-3,3e-3 --grid optim.weight_decay=0,0.1
  animalclf compare --data photos/ --recipes big_cnn --search optim.lr=log:1e-5:1e-2 --samples 12 --schedule asha
  animalclf compare --data photos/ --file comparison.yaml --out runs/c --predict competition/ --prior uniform
  animalclf compare --data photos/ --recipes big_cnn,vgg16,resnet18 --seeds 3 --out runs/c --resume      (goes on, or adds trials)
a comparison file: recipes: [big_cnn, {recipe: vgg16, name: vgg_small, set: {train.epochs: 5}}]; seeds, set, grid, search, samples, schedule""",
        api.compare,
    )
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--out", help="comparison folder or s3:// prefix (default: runs/compare-<time>)")
    parser.add_argument("--prepared", help="where prepared sets are kept (default: beside the comparison folder)")
    parser.add_argument("--file", metavar="YAML", help="a comparison file; flags win over it")
    parser.add_argument("--recipes", default="", help="recipes to compare, with commas")
    parser.add_argument("--seeds", default="", help="how many seeds (3: 0, 1, 2), or a list with commas (default: 1)")
    set_argument(parser)
    limit_argument(parser)
    parser.add_argument(
        "--grid", action="append", default=[], metavar="KEY=A,B", help="every combination of these values; repeatable"
    )
    parser.add_argument(
        "--search",
        action="append",
        default=[],
        metavar="KEY=LOW:HIGH",
        help="draw from a range (log:LOW:HIGH) or a list; repeatable",
    )
    parser.add_argument("--samples", type=int, metavar="N", help="how many draws of --search")
    parser.add_argument("--searcher", choices=["random", "optuna"], help="who draws (default: random)")
    parser.add_argument(
        "--schedule", choices=["none", "asha"], help="asha: stop trials of one recipe that fall behind (default: none)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="training workers a trial (default: 1)")
    parser.add_argument("--cpu", action="store_true", help="train on CPUs although there are GPUs")
    parser.add_argument(
        "--max-concurrent",
        type=int,
        metavar="N",
        help="trials at a time (default: as many as the cluster has room for)",
    )
    parser.add_argument("--resume", action="store_true", help="continue the comparison in --out, or add trials to it")
    parser.add_argument(
        "--predict", metavar="DATA", help="unlabelled pictures: the ensembles write a submission for them"
    )
    prior_argument(parser)
    parser.add_argument("--sample-submission", help="check the submission's ids and classes against this CSV")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    return show(
        call(
            api.compare, arguments, **flag_values(arguments.recipes, arguments.seeds, arguments.grid, arguments.search)
        )
    )


def flag_values(
    recipes: str = "", seeds: str = "", grid: Sequence[str] = (), search: Sequence[str] = ()
) -> dict[str, Any]:
    """The flags as `api.compare` takes them: `recipes` "big_cnn,vgg16", `seeds` "3" or "0,5" ("7," is the one seed 7), `grid`
    ["optim.lr=1e-3,3e-4"], `search` ["optim.lr=log:1e-5:1e-2"]. Raises UserError for a flag that cannot be parsed."""
    return {
        "recipes": [name.strip() for name in recipes.split(",") if name.strip()],
        "seeds": parse_list(seeds) if "," in seeds else seeds,
        "grid": {key: parse_list(text) for key, text in (assignment("--grid", item, raw=True) for item in grid)},
        "search": dict(assignment("--search", item, raw=True) for item in search),
    }


def show(result: ComparisonResult) -> dict[str, Any]:
    """Print the leaderboard and where the results are. Returns what --json prints, and the exit code."""
    from animalclf.report.leaderboard_render import pairs_table, table
    from animalclf.utils.console import console

    console.print(table(result.leaderboard))
    if result.leaderboard.pairs:
        console.print(pairs_table(result.leaderboard))
    for one in result.ensembles:
        if one.submission:
            console.print(f"submission of the {one.name}: {one.submission}", soft_wrap=True)
    console.print(f"report: {result.report}", soft_wrap=True)
    unreadable = any(one.unreadable for one in result.ensembles)
    content, ranking = result.to_dict(), result.leaderboard.to_dict()
    ranked = {"leaderboard": ranking["rows"], "pairs": ranking["pairs"]}
    return {**content, **ranked, "exit_code": 1 if result.failed else UNREADABLE if unreadable else 0}
