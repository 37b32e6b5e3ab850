"""`animalclf compare`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

from animalclf.commands.common import DATA_HELP, UNREADABLE, add_command, escape, overrides_of, prior_argument, set_argument
from animalclf.config import assignment, read
from animalclf.errors import UserError
from animalclf.metrics import PRIMARY
from animalclf.utils.text import parse_list


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
    )
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--out", help="comparison folder or s3:// prefix (default: runs/compare-<time>)")
    parser.add_argument("--prepared", help="where prepared sets are kept (default: beside the comparison folder)")
    parser.add_argument("--file", default="", metavar="YAML", help="a comparison file; flags win over it")
    parser.add_argument("--recipes", default="", help="recipes to compare, with commas")
    parser.add_argument("--seeds", default="", help="how many seeds (3: 0, 1, 2), or a list with commas (default: 1)")
    set_argument(parser)
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="use only N pictures, spread over the classes: a smoke run")
    parser.add_argument("--grid", action="append", default=[], metavar="KEY=A,B", help="every combination of these values; repeatable")
    parser.add_argument(
        "--search", action="append", default=[], metavar="KEY=LOW:HIGH", help="draw from a range (log:LOW:HIGH) or a list; repeatable"
    )
    parser.add_argument("--samples", type=int, default=0, metavar="N", help="how many draws of --search")
    parser.add_argument("--searcher", default="", choices=["random", "optuna"], help="who draws (default: random)")
    parser.add_argument("--schedule", default="", choices=["none", "asha"], help="asha: stop trials of one recipe that fall behind (default: none)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="training workers a trial (default: 1)")
    parser.add_argument("--cpu", action="store_true", help="train on CPUs although there are GPUs")
    parser.add_argument("--max-concurrent", type=int, default=0, metavar="N", help="trials at a time (default: as many as the cluster has room for)")
    parser.add_argument("--resume", action="store_true", help="continue the comparison in --out, or add trials to it")
    parser.add_argument("--predict", metavar="DATA", help="unlabelled pictures: the ensembles write a submission for them")
    prior_argument(parser)
    parser.add_argument("--sample-submission", help="check the submission's ids and classes against this CSV")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf.tuning.spec import build_spec

    if arguments.resume and not arguments.out:
        raise UserError("--resume needs --out: the comparison folder to continue")
    flags = {name: getattr(arguments, name) for name in ("recipes", "seeds", "grid", "search", "samples", "schedule", "searcher")}
    return compared(build_spec(comparison_tree(arguments.file, overrides=overrides_of(arguments), **flags)), arguments)


def comparison_tree(
    file: str = "",
    *,
    recipes: str = "",
    overrides: Mapping[str, Any] | None = None,
    seeds: str = "",
    grid: Sequence[str] = (),
    search: Sequence[str] = (),
    **others: Any,
) -> dict[str, Any]:
    """A comparison `file` with the flags over it, as the mapping that `tuning.spec.build_spec` takes: `recipes` "big_cnn,vgg16", `overrides`
    {"train.epochs": 5}, `seeds` "3" or "0,5" ("7," is the one seed 7), `grid` ["optim.lr=1e-3,3e-4"], `search` ["optim.lr=log:1e-5:1e-2"].
    Raises UserError for a file or a flag that cannot be parsed."""
    tree = read(file, "comparison file") if file else {}
    flags = {
        "recipes": [name.strip() for name in recipes.split(",") if name.strip()],
        "seeds": parse_list(seeds) if "," in seeds else seeds,
        "grid": {key: parse_list(text) for key, text in (assignment("--grid", item, raw=True) for item in grid)},
        "search": dict(assignment("--search", item, raw=True) for item in search),
        **others,
    }
    if overrides:
        own = tree.get("set") or {}
        flags["set"] = {**(own if isinstance(own, dict) else {}), **overrides}
    return tree | {key: value for key, value in flags.items() if value}


def compared(plan: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the comparison `plan`, and what follows it: leaderboard, ensembles, report."""
    from animalclf.runs import Run
    from animalclf.tuning.compare import compare
    from animalclf.tuning.live import LiveTable
    from animalclf.utils import storage
    from animalclf.utils.console import console

    out = storage.absolute(arguments.out or f"runs/compare-{time.strftime('%Y%m%d-%H%M%S')}")
    flags = {"workers": arguments.workers, "cpu": arguments.cpu, "resume": arguments.resume, "max_concurrent": arguments.max_concurrent}
    with LiveTable(plan.trials) as live:
        done = compare(plan, arguments.data, out, prepared_at=arguments.prepared or "", show=live.show, **flags)
    finished, failed = [Run(root) for root in done.runs], [trial for trial in done.trials if trial.state == "failed"]
    for trial in failed:
        console.print(f"[bold red]failed:[/] {escape(trial.name)}, seed {trial.seed}: {escape(trial.reason)}", soft_wrap=True)
    if not finished:
        raise UserError(f"no trial finished, so there is nothing to compare; the reasons stand above and in {out}/summary.json")
    return {**conclude(finished, failed, out, arguments), "trials": [trial.to_dict() for trial in done.trials], "comparison": out}


def conclude(finished: list[Any], failed: list[Any], out: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Leaderboard, ensembles with their submissions, and the report of finished runs."""
    from animalclf.inference.ensemble import ensemble
    from animalclf.report.leaderboard import leaderboard
    from animalclf.report.leaderboard_render import pairs_table, table, write
    from animalclf.report.page import write_report
    from animalclf.utils import storage
    from animalclf.utils.console import console

    members = best_of_each(finished)
    predicting = {"data": arguments.predict, "prior": arguments.prior, "sample_submission": arguments.sample_submission} if arguments.predict else {}
    ensembles = ensemble(members, storage.join(out, "ensemble"), **predicting) if len(members) > 1 else []
    board = leaderboard(finished, ensembles)
    write(board, out)
    page = write_report(finished, out, title="Comparison", board=board, ensembles=ensembles, failed=failed)
    console.print(table(board))
    if board.pairs:
        console.print(pairs_table(board))
    for made in ensembles:
        if made.submission:
            console.print(f"submission of the {made.name}: {made.submission}", soft_wrap=True)
    console.print(f"report: {page['report']}", soft_wrap=True)
    unreadable = any(made.unreadable for made in ensembles)
    code = 1 if failed else UNREADABLE if unreadable else 0
    ranking = board.to_dict()
    return {
        "leaderboard": ranking["rows"],
        "pairs": ranking["pairs"],
        "ensembles": [result.to_dict() for result in ensembles],
        "report": page["report"],
        "exit_code": code,
    }


def best_of_each(finished: list[Any]) -> list[Any]:
    """The runs that an ensemble joins: the best seed of each recipe by validation, or all seeds where there is one recipe only."""
    by_name: dict[str, list[Any]] = {}
    for one in finished:
        by_name.setdefault(one.config().name, []).append(one)
    if len(by_name) == 1:
        return finished
    return [max(seeds, key=lambda one: one.result().metrics[PRIMARY]) for seeds in by_name.values()]
