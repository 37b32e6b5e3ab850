"""What the commands share: how a command is added to the parser, and arguments that several of them have."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from animalclf import config as configuration

T = TypeVar("T")

UNREADABLE = 3  # exit code: the work is done, but some pictures could not be read
DATA_HELP = "class folders (root/<class>/*.jpg), an unpacked Kaggle competition folder, a CSV or Parquet table, or a prepared set; a local path or s3://"
PRIOR_HELP = "class shares of these pictures, to correct for: train (no change), uniform, estimate (from the predictions), cane=0.2,gatto=0.8, or a file"


def add_command(
    commands: Any, name: str, run: Any, summary: str, examples: str, function: Callable[..., Any] | None = None
) -> argparse.ArgumentParser:
    """Add the command `name`. `run(arguments)` returns what --json prints; its key `exit_code` (default 0) is taken out and returned.
    `function` of the API gives the arguments of the command that are named as its parameters their defaults."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parameters = inspect.signature(function).parameters.values() if function else ()
    parser.set_defaults(handler=run, **{one.name: one.default for one in parameters if one.default is not one.empty})
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line on standard output")
    return parser


def call(function: Callable[..., T], arguments: argparse.Namespace, **others: Any) -> T:
    """Call a function of the API with the command's arguments that are named as its parameters; `others` go before them."""
    names = inspect.signature(function).parameters
    values = {name: value for name, value in vars(arguments).items() if name in names}
    if "set" in values:
        values["set"] = configuration.parse_sets(values["set"] or ())
    return function(**values | others)


def recipe_arguments(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(configuration.recipe_names())
    parser.add_argument("--recipe", help=f"one of {names}, or a .yaml file (default: %(default)s)")
    set_argument(parser)
    limit_argument(parser)


def limit_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=int, metavar="N", help="use only N pictures, spread over the classes: a smoke run"
    )


def set_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="change one key of the recipe, e.g. --set train.epochs=5; repeatable (`animalclf recipes NAME` explains the keys)",
    )


def prior_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prior", help=PRIOR_HELP)
