"""`animalclf recipes`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from animalclf.commands.common import add_command
from animalclf.config import reference

ORDER = 10


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "recipes",
        run,
        "List the recipes that come with the package, or show one: each key's value, what differs from the defaults, and what it means.",
        """  animalclf recipes
  animalclf recipes vgg16
  animalclf recipes runs/a/config.yaml --changed         (any recipe file; only what differs from the defaults)""",
    )
    parser.add_argument(
        "recipe",
        nargs="?",
        metavar="NAME",
        help="a recipe, or the path or s3:// URL of a .yaml file (default: list all)",
    )
    parser.add_argument("--changed", action="store_true", help="show only the keys that differ from the defaults")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf.utils.console import console

    if arguments.recipe is None:
        recipes = reference.recipe_summaries()
        console.print(_table("recipes", ("recipe", "summary"), [(row["recipe"], row["summary"]) for row in recipes]))
        return {"recipes": recipes}
    keys = [row for row in reference.explain(arguments.recipe) if row["changed"] or not arguments.changed]
    console.print(_table(arguments.recipe, ("key", "value", "meaning"), [_cells(row) for row in keys]))
    return {"recipe": arguments.recipe, "keys": keys}


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    from rich.text import Text

    value = Text(reference.shown(row["value"]))
    if row["changed"]:
        value.stylize("bold")
        value.append(f" (default {reference.shown(row['default'])})", "dim")
    return Text(row["key"]), value, Text.assemble(row["doc"], (f"\n{row['kind']}", "dim"))


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_lines=len(columns) > 2)
    for column in columns:
        table.add_column(column, no_wrap=column in ("recipe", "key"))
    for row in rows:
        table.add_row(*row)
    return table
