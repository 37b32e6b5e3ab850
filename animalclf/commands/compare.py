"""`animalclf compare`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any

from animalclf import api
from animalclf.commands.common import (
    DATA_HELP,
    Answer,
    add_command,
    call,
    check_dry_run,
    dry_run_arguments,
    folds_argument,
    limit_argument,
    notify_arguments,
    prior_argument,
    sample_submission_argument,
    set_argument,
    show_problems_of,
)
from animalclf.config import assignment
from animalclf.errors import exit_code
from animalclf.utils.console import console, show_line
from animalclf.utils.yaml_text import parse_list

if TYPE_CHECKING:
    from animalclf.commands.common import Commands
    from animalclf.rows import ComparisonResult, Leaderboard

ORDER = 40
EXAMPLES = """\
  animalclf compare --data photos/ --recipes quick,vgg16_pooled
  animalclf compare --data photos/ --recipes big_cnn,big_cnn_balanced,vgg16 --seeds 3
  animalclf compare --data photos/ --recipes vgg16_pooled --grid optim.lr=1e-3,3e-3 --grid optim.weight_decay=0,0.1
  animalclf compare --data photos/ --recipes big_cnn --search optim.lr=log:1e-5:1e-2 --samples 12 --schedule asha
  animalclf compare --data photos/ --recipes big_cnn,vgg16 --seeds 3 --dry-run    (what it will take)
  animalclf compare --data photos/ --file comparison.yaml --out runs/c --predict competition/ --prior uniform
  animalclf compare --data photos/ --recipes big_cnn,vgg16 --seeds 3 --out runs/c --resume     (continue, or add trials)
a comparison file has the keys recipes, seeds, set, grid, search, samples, searcher and schedule, for example
  recipes: [big_cnn, {recipe: vgg16, name: vgg_small, set: {train.epochs: 5, model.weights: vgg16_features.pth}}]"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "compare",
        run,
        summary="Train several recipes, seeds or settings on the same images; write a leaderboard, ensembles and a "
        "report.",
        examples=EXAMPLES,
        api_function=api.compare,
    )
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--out", help="comparison folder or s3:// prefix (default: runs/compare-<time>)")
    parser.add_argument(
        "--prepared", metavar="FOLDER", help="where prepared sets are stored (default: next to the comparison folder)"
    )
    parser.add_argument("--file", metavar="YAML", help="a comparison file; flags override it")
    parser.add_argument("--recipes", default="", metavar="A,B", help="recipes to compare, separated by commas")
    parser.add_argument(
        "--seeds", default="", metavar="N|A,B", help="how many seeds (3: 0, 1, 2), or a list (default: 1)"
    )
    set_argument(parser)
    limit_argument(parser)
    _search_arguments(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="training workers for each trial (default: 1)")
    folds_argument(parser)
    parser.add_argument("--cpu", action="store_true", help="train on CPUs although there are GPUs")
    parser.add_argument(
        "--max-concurrent", type=int, metavar="N", help="trials at a time (default: as many as the cluster can run)"
    )
    parser.add_argument("--resume", action="store_true", help="continue the comparison in --out, or add trials to it")
    parser.add_argument("--predict", metavar="DATA", help="unlabelled images for which the ensembles write submissions")
    prior_argument(parser)
    sample_submission_argument(parser)
    dry_run_arguments(parser, "plan_comparison")
    notify_arguments(parser)


def _search_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grid", action="append", default=[], metavar="KEY=A,B", help="every combination of these values; repeatable"
    )
    parser.add_argument(
        "--search",
        action="append",
        default=[],
        metavar="KEY=LOW:HIGH",
        help="draw from a range (log:LOW:HIGH for a log scale) or a list; repeatable",
    )
    parser.add_argument("--samples", type=int, metavar="N", help="number of trials drawn from --search")
    parser.add_argument(
        "--searcher", choices=["random", "optuna"], help="how the samples of --search are chosen (default: random)"
    )
    parser.add_argument(
        "--schedule", choices=["none", "asha"], help="asha: stop trials of one recipe that fall behind (default: none)"
    )


def run(arguments: argparse.Namespace) -> Answer:
    flags = flag_values(arguments.recipes, arguments.seeds, arguments.grid, arguments.search)
    check_dry_run(arguments)
    if arguments.dry_run:
        return _plan(arguments, flags)
    result = call(api.compare, arguments, **flags)
    answer = show(result)
    if result.leaderboard.rows and not arguments.predict:
        show_line(f"next: animalclf predict {quote(result.leaderboard.rows[0].runs[0])} --data IMAGES")
    return answer


def _plan(arguments: argparse.Namespace, flags: Mapping[str, Any]) -> Answer:
    from animalclf.planning.show import comparison_lines, comparison_table

    plan = call(api.plan_comparison, arguments, **flags)
    console.print(comparison_table(plan))
    for line in comparison_lines(plan):
        show_line(line)
    show_problems_of(plan.problems)
    return Answer(plan.to_dict())


def flag_values(
    recipes: str = "", seeds: str = "", grid: Sequence[str] = (), search: Sequence[str] = ()
) -> dict[str, Any]:
    """The flags as `api.compare` takes them: `recipes` "big_cnn,vgg16", `seeds` "3" or "0,5" ("7," is the seed 7),
    `grid` ["optim.lr=1e-3,3e-4"], `search` ["optim.lr=log:1e-5:1e-2"]. Raises UserError for a flag that cannot be
    parsed."""
    seed_list = parse_list(seeds)
    return {
        "recipes": [name.strip() for name in recipes.split(",") if name.strip()] or None,
        "seeds": seed_list if "," in seeds else seed_list[0] if seed_list else None,
        "grid": {key: parse_list(text) for key, text in (assignment("--grid", item, raw=True) for item in grid)},
        "search": dict(assignment("--search", item, raw=True) for item in search),
    }


def show(result: ComparisonResult) -> Answer:
    """Print the leaderboard and where the results are."""
    from animalclf.report.leaderboard_render import pairs_table, table

    console.print(table(result.leaderboard))
    if result.leaderboard.pairs:
        console.print(pairs_table(result.leaderboard))
    for ensemble in result.ensembles:
        if ensemble.submission:
            show_line(f"submission of the {ensemble.name}: {ensemble.submission}")
    show_line(f"report: {result.report}")
    unreadable = any(ensemble.unreadable for ensemble in result.ensembles)
    unreadable |= bool(result.problems and result.problems.unreadable)
    ranking = result.leaderboard.to_dict()
    content = {**result.to_dict(), "leaderboard": ranking["rows"], "pairs": ranking["pairs"]}
    code = exit_code(failed=bool(result.failed), unreadable=unreadable)
    return Answer(content, code, _headline(result.leaderboard), result.comparison)


def _headline(board: Leaderboard) -> str:
    """The best recipe, as `quick: balanced accuracy 0.9333 (95 %: 0.9100 to 0.9500)`."""
    from animalclf.metrics import METRICS, PRIMARY

    if not board.rows or PRIMARY not in board.rows[0].metrics:
        return ""
    metric, spread = METRICS.get(PRIMARY), board.rows[0].metrics[PRIMARY]
    interval = f" (95 %: {metric.text(spread.low)} to {metric.text(spread.high)})"
    return f"{board.rows[0].recipe}: {metric.title} {metric.text(spread.mean)}{interval}"
