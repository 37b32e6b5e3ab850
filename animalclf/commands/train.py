"""`animalclf train`."""

from __future__ import annotations

import argparse
from shlex import quote
from typing import TYPE_CHECKING

from animalclf import api
from animalclf.commands.common import (
    DATA_HELP,
    Answer,
    add_command,
    call,
    check_dry_run,
    corrections_argument,
    dry_run_arguments,
    evaluation_headline,
    folds_argument,
    notify_arguments,
    recipe_arguments,
    show_problems_of,
)
from animalclf.errors import exit_code
from animalclf.utils.console import console, show_line

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 30
EXAMPLES = """\
  animalclf train --data photos/
  animalclf train --data photos/ --folds 4                     (cross-validation: metrics of all images)
  animalclf train --data photos/ --recipe big_cnn
  animalclf train --data photos/ --recipe vgg16_pooled --set model.weights=vgg16_features.pth --set data.val=0.25
  animalclf train --data s3://bucket/photos --out s3://bucket/runs/a --workers 4
  animalclf train --data photos/ --out runs/a --resume         (after Ctrl-C, a crash or a lost machine)
  animalclf train --data photos/ --out runs/cnn --resume --set train.epochs=200          (train a finished run further)
  animalclf train --data photos/ --recipe big_cnn --dry-run           (what it will take; nothing is written)
  animalclf train --data photos/ --recipe big_cnn --local --limit 200 --set train.epochs=1   (breakpoints work)"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "train",
        run,
        summary="Train one recipe and evaluate its best epoch.",
        examples=EXAMPLES,
        api_function=api.train,
    )
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--out", help="run folder or s3:// prefix (default: runs/<recipe>-<time>)")
    parser.add_argument(
        "--prepared",
        metavar="FOLDER",
        help="where the prepared set is stored (default: next to the run folder, named by its fingerprint)",
    )
    parser.add_argument(
        "--workers",
        metavar="N|MIN:MAX",
        help="training workers (default: one per GPU, or 1 on CPUs); 2:8: continue with fewer when machines are lost, "
        "grow when they return",
    )
    folds_argument(parser)
    corrections_argument(parser)
    parser.add_argument("--cpu", action="store_true", help="train on CPUs although there are GPUs")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out from its last finished epoch")
    parser.add_argument("--local", action="store_true", help="train in this process, without Ray Train")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="write a trace of a few steps as profile/trace.json.gz, to open with ui.perfetto.dev",
    )
    dry_run_arguments(parser, "plan_training")
    notify_arguments(parser)
    recipe_arguments(parser, "quick, or with --resume the run's own configuration")


def run(arguments: argparse.Namespace) -> Answer:
    from animalclf.training.display import results_table

    check_dry_run(arguments)
    if arguments.dry_run:
        return _plan(arguments)
    result = call(api.train, arguments)
    console.print(results_table(result))
    show_line(f"next: animalclf predict {quote(result.run)} --data IMAGES, or animalclf report {quote(result.run)}")
    code = exit_code(unreadable=bool(result.problems and result.problems.unreadable))
    return Answer(result.to_dict(), code, evaluation_headline(result.val or result.test), result.run)


def _plan(arguments: argparse.Namespace) -> Answer:
    from animalclf.planning.show import training_table

    plan = call(api.plan_training, arguments)
    console.print(training_table(plan))
    show_problems_of(plan.problems)
    return Answer(plan.to_dict())
