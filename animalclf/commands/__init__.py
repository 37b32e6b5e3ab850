"""One module for each command: its arguments, its help, and how its result is shown. animalclf.api does the work.

A module here with `add(commands)` is a command. Its ORDER is its position in the help. For example:

    ORDER = 85

    def add(commands: Commands) -> None:
        parser = add_command(
            commands,
            "count",
            run,
            summary="Count the images of a prepared set.",
            examples="  animalclf count prepared/",
        )
        parser.add_argument("prepared", metavar="FOLDER", help="a prepared set")

    def run(arguments: argparse.Namespace) -> Answer:
        images = len(open_prepared(arguments.prepared).manifest)
        show_line(count_text(images, "image"))
        return Answer({"images": images})

`ray job submit` runs it through ray_jobs/count.py: copy a file of that folder and change the name in it.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any


def command_modules() -> list[Any]:
    """The modules of all commands, in the order of the help."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return sorted((module for module in modules if hasattr(module, "add")), key=lambda module: module.ORDER)


def command_names() -> list[str]:
    """The names of all commands, in the order of the help."""
    return [module.__name__.rpartition(".")[2] for module in command_modules()]
