"""One module a command: its arguments, its help, and how its result is shown. The work is done by animalclf.api.

A module here with `add(commands)` is a command; its ORDER is its place in the help.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any


def command_modules() -> list[Any]:
    """The modules of all commands, in the order of the help."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return sorted((module for module in modules if hasattr(module, "add")), key=lambda module: module.ORDER)
