"""Writes the reference at the end of docs/api.md from the signatures and docstrings: `python docs/api_reference.py`."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import animalclf
from animalclf import rows
from animalclf.inference.model import Model

PAGE = Path(__file__).with_name("api.md")
HEADING = "## Reference\n"
FUNCTIONS = (
    "prepare",
    "train",
    "compare",
    "plan_training",
    "plan_comparison",
    "evaluate",
    "predict",
    "ensemble",
    "report",
    "export",
    "explain",
    "serve",
    "labels",
    "suggest",
    "load",
    "leave_ray",
)
RESULTS = (
    rows.TrainingResult,
    rows.ComparisonResult,
    rows.TrainingPlan,
    rows.ComparisonPlan,
    rows.EvaluationResult,
    rows.PredictionResult,
    rows.EnsemblesResult,
    rows.EnsembleResult,
    rows.VoteResult,
    rows.Leaderboard,
    rows.LeaderboardRow,
    rows.ReportResult,
)


def reference() -> str:
    """The reference in Markdown, after its heading."""
    parts = [_entry(f"animalclf.{name}", getattr(animalclf, name)) for name in FUNCTIONS]
    parts.append(f"### Model\n\n{_text(Model)}")
    parts += [
        _entry(f"Model.{name}", method)
        for name, method in vars(Model).items()
        if inspect.isfunction(method) and name[0] != "_"
    ]
    parts += [f"### {row.__name__}\n\n{_text(row)}\n\nFields: {_fields(row)}." for row in RESULTS]
    return "\n\n".join(parts) + "\n"


def page(text: str) -> str:
    """`text` of the page, with a new reference."""
    return text[: text.index(HEADING) + len(HEADING)] + "\n" + reference()


def _entry(name: str, function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    call = signature.replace(parameters=parameters, return_annotation=signature.empty)
    lines = textwrap.wrap(
        f"{name}{call}", 110, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return f"### {name}\n\n" + "\n".join(f"    {line}" for line in lines) + f"\n\n{_text(function)}"


def _text(documented: object) -> str:
    return inspect.getdoc(documented) or ""


def _fields(row: type) -> str:
    names = [field.name for field in fields(row)] + [n for n, value in vars(row).items() if isinstance(value, property)]
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
