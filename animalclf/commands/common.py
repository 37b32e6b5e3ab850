"""What the commands share: the registration of a command, its answer, and arguments that several commands have."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from animalclf import config as configuration
from animalclf.errors import ExitCode, UserError
from animalclf.utils.console import show_error

if TYPE_CHECKING:
    from animalclf.rows import Evaluation

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

T = TypeVar("T")

DATA_HELP = (
    "class folders (root/<class>/*.jpg), an unpacked Kaggle competition folder, a CSV or Parquet table, or a prepared "
    "set; a local path or s3://"
)
PRIOR_HELP = (
    "class priors of these images, to correct for: train (no change), uniform, estimate (from the predictions), "
    "dog=0.2,cat=0.8, or a file"
)


@dataclass(frozen=True)
class Answer:
    """What a command returns: `content` is what --json prints. `exit_code`: see errors.exit_code. Notifications have
    `headline`, the result in one line, and the output `folder`."""

    content: Mapping[str, object]
    exit_code: int = ExitCode.SUCCESS
    headline: str = ""
    folder: str = ""


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], Answer],
    *,
    summary: str,
    examples: str,
    api_function: Callable[..., object] | None = None,
) -> argparse.ArgumentParser:
    """Add the command `name`, which calls `run`. Its arguments get the defaults of the parameters of the same name of
    `api_function`. `examples`: lines indented by two spaces."""
    parser = commands.add_parser(
        name,
        help=summary.replace("%", "%%"),
        description=summary,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parameters = inspect.signature(api_function).parameters.values() if api_function else ()
    defaults = {item.name: item.default for item in parameters if item.default is not item.empty}
    parser.set_defaults(handler=run, command_name=name, **defaults)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line on standard output")
    return parser


def call(function: Callable[..., T], arguments: argparse.Namespace, **values: Any) -> T:
    """Call a function of the API. Each command-line argument goes to the parameter of the same name, others are left
    out; `values` replace them."""
    names = inspect.signature(function).parameters
    flag_values = {name: value for name, value in vars(arguments).items() if name in names}
    if "set" in flag_values:
        flag_values["set"] = configuration.parse_sets(flag_values["set"] or ())
    return function(**flag_values | values)


def recipe_arguments(parser: argparse.ArgumentParser, default: str = "quick") -> None:
    names = ", ".join(configuration.recipe_names())
    families = "features:BACKBONE, tuned:BACKBONE"
    parser.add_argument(
        "--recipe", metavar="NAME", help=f"one of {names}, {families}, or a .yaml file (default: {default})"
    )
    set_argument(parser)
    limit_argument(parser)


def limit_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="use only N images, spread over the classes: a smoke run (default: 0, all)",
    )


def folds_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="cross-validate in K folds: metrics of all training and validation images, each by a model without its "
        "fold; then train on all of them",
    )


def corrections_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--corrections",
        metavar="FILE",
        help="a labels.csv of `animalclf labels` with decisions filled in (keep, relabel or drop); no image file is "
        "changed",
    )


def set_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="change one key of the recipe (of all recipes of a comparison), e.g. --set train.epochs=5; repeatable "
        "(`animalclf recipes NAME` explains the keys)",
    )


def notify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--notify", metavar="URL", help="POST a JSON to this webhook when the command ends, also by an error or Ctrl-C"
    )
    parser.add_argument(
        "--notify-command",
        metavar="COMMAND",
        help="run this when the command ends, with that JSON on standard input and as ANIMALCLF_NOTIFY_... variables",
    )


def evaluation_headline(evaluation: Evaluation | None) -> str:
    """`balanced accuracy 0.9333 (95 %: 0.8114 to 0.9668)`; empty without an evaluation."""
    from animalclf.metrics import METRICS, PRIMARY
    from animalclf.metrics.text import metric_lines

    title = METRICS.get(PRIMARY).title
    lines = [line for line in metric_lines(evaluation) if line.title == title] if evaluation else []
    return f"{title} {lines[0].text.replace('  ', ' ')}" if lines else ""


def dry_run_arguments(parser: argparse.ArgumentParser, api_function: str) -> None:
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="write nothing: rehearse on a few images, and print images, parameters, memory, time and cost (Python: "
        f"animalclf.{api_function})",
    )
    parser.add_argument(
        "--price-per-hour",
        type=float,
        metavar="PRICE",
        help="with --dry-run: the price of one device for an hour; a device is a GPU, or a node if there are none",
    )


def check_dry_run(arguments: argparse.Namespace) -> None:
    """Raise UserError for a price without --dry-run, which alone uses it."""
    if arguments.price_per_hour is not None and not arguments.dry_run:
        raise UserError("--price-per-hour: needs --dry-run, which prints what the command will cost")


def show_problems_of(problems: Sequence[str]) -> None:
    """Print what a plan says does not fit."""
    for problem in problems:
        show_error(problem, label="does not fit:")


def prior_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prior", help=PRIOR_HELP)


def views_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--views",
        choices=["none", "flip", "multi"],
        help="average the probabilities over views: flip (the image and its mirror image: twice the time), multi "
        "(these and their middles, enlarged: four times) (default: none)",
    )


def views_arguments(parser: argparse.ArgumentParser) -> None:
    views_argument(parser)
    parser.add_argument(
        "--transport",
        action="store_true",
        help="the class counts of these images are known to be exactly those of --prior (a balanced test set: "
        "uniform): assign the classes by optimal transport; does harm where the counts differ",
    )


def table_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="columns predicted_2, probability_2, ... for the K most probable classes (default: 1, which is predicted)",
    )
    parser.add_argument(
        "--format",
        choices=["parquet", "csv", "jsonl"],
        help="of the table of probabilities: Parquet, CSV, or JSON lines (default: parquet)",
    )


def sample_submission_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sample-submission", metavar="CSV", help="check the submission's ids and classes against it")
