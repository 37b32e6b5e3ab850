"""What the commands share: how a command is added to the parser, and arguments that several of them have."""

from __future__ import annotations

import argparse
from typing import Any

from animalclf import config as configuration

UNREADABLE = 3  # exit code: the work is done, but some pictures could not be read
DATA_HELP = (
    "class folders (root/<class>/*.jpg), an unpacked Kaggle competition folder, a CSV or Parquet table, or a prepared set; a local path or s3://"
)
PRIOR_HELP = (
    "class shares of these pictures, to correct for: train (no change), uniform, estimate (from the predictions), cane=0.2,gatto=0.8, or a file"
)


def add_command(commands: Any, name: str, run: Any, summary: str, examples: str) -> argparse.ArgumentParser:
    """Add the command `name`. `run(arguments)` returns what --json prints; its key `exit_code` (default 0) is taken out and returned."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary, epilog=f"examples:\n{examples}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line on standard output")
    return parser


def recipe_arguments(parser: argparse.ArgumentParser, recipe: str) -> None:
    names = ", ".join(configuration.recipe_names())
    parser.add_argument("--recipe", default=recipe, help=f"one of {names}, or a .yaml file (default: {recipe})")
    set_argument(parser)
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="use only N pictures, spread over the classes: a smoke run")


def set_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the recipe, e.g. --set train.epochs=5; repeatable (`animalclf recipes NAME` explains the keys)",
    )


def prior_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prior", default="train", help=PRIOR_HELP)


def overrides_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The overrides of --set and --limit: dotted key -> value."""
    return configuration.parse_sets(arguments.set) | ({"data.limit": arguments.limit} if arguments.limit else {})


def escape(text: str) -> str:
    """`text` for the console, its brackets taken literally."""
    from rich.markup import escape as escaped

    return escaped(text)
