"""`animalclf recipes`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from animalclf.commands.common import Answer, add_command
from animalclf.config import reference
from animalclf.utils.console import console

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 10
EXAMPLES = """\
  animalclf recipes
  animalclf recipes vgg16
  animalclf recipes runs/a/config.yaml --changed         (any recipe file; only what differs from the defaults)"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "recipes",
        run,
        summary="List the recipes that come with the package, or show one: each key with its value, default and "
        "meaning.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "recipe",
        nargs="?",
        metavar="NAME",
        help="a recipe, or the path or s3:// URL of a .yaml file (default: list all)",
    )
    parser.add_argument("--changed", action="store_true", help="show only the keys that differ from the defaults")


def run(arguments: argparse.Namespace) -> Answer:
    if arguments.recipe is None:
        recipes = reference.recipe_summaries()
        rows = [(Text(row["recipe"]), Text(row["summary"])) for row in recipes]
        console.print(_table("recipes", ("recipe", "summary"), rows))
        return Answer({"recipes": recipes})
    keys = [key for key in reference.explain(arguments.recipe) if key.changed or not arguments.changed]
    console.print(_table(arguments.recipe, ("key", "value", "meaning"), [_cells(key) for key in keys]))
    return Answer({"recipe": arguments.recipe, "keys": [dataclasses.asdict(key) for key in keys]})


def _cells(key: reference.RecipeKey) -> tuple[Text, Text, Text]:
    value = Text(reference.yaml_text(key.value), "bold" if key.changed else "")
    if key.changed:
        value.append(f" (default {reference.yaml_text(key.default)})", "not bold dim")
    return Text(key.key), value, Text.assemble(f"{key.doc}\n", (key.kind, "dim"))


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Text]]) -> Table:
    table = Table(title=Text(title), title_justify="left", show_lines=len(columns) > 2)
    for column in columns:
        table.add_column(column, no_wrap=column in ("recipe", "key"))
    for row in rows:
        table.add_row(*row)
    return table
