"""Labelled images to a trained, evaluated classifier on one laptop or a Ray cluster; see animalclf/api/ for the
Python API."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from animalclf.api import (
        UserError,
        compare,
        ensemble,
        evaluate,
        explain,
        export,
        labels,
        leave_ray,
        load,
        plan_comparison,
        plan_training,
        predict,
        prepare,
        report,
        serve,
        suggest,
        train,
    )

__version__ = "0.1.0"
__all__ = [
    "UserError",
    "compare",
    "ensemble",
    "evaluate",
    "explain",
    "export",
    "labels",
    "leave_ray",
    "load",
    "plan_comparison",
    "plan_training",
    "predict",
    "prepare",
    "report",
    "serve",
    "suggest",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        from animalclf.utils.registry import nearest

        raise AttributeError(f"module 'animalclf' has no attribute {name!r}{nearest(name, __all__)}")
    from animalclf import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(types.ModuleType):
    """`animalclf.prepare` and `animalclf.report` are functions: the import of the subpackages of these names must not
    replace them."""

    def __setattr__(self, name: str, value: object) -> None:
        if name not in __all__:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
