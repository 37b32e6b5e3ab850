"""Text that users write as values, and errors of libraries as one line of text."""

from __future__ import annotations

from typing import Any

import yaml

from animalclf.errors import UserError

MAX_REASON = 200  # characters


def reason(error: BaseException) -> str:
    """What is wrong, in one printable line: the first line of the error's text, or its type's name if it has no
    text; of a YAML error the problem and its line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        text = f"line {error.problem_mark.line + 1}: {error.problem}"
    else:
        text = next(iter(str(error).strip().splitlines()), "")
    return "".join(filter(str.isprintable, text))[:MAX_REASON] or type(error).__name__


def parse_yaml(text: str, loader: Any = yaml.SafeLoader) -> Any:
    """The value of YAML text. Raises ValueError with a reason in one line."""
    try:
        return yaml.load(text, loader)
    except Exception as error:  # constructors of values raise errors of many types
        raise ValueError(reason(error)) from error


def parse_list(text: str) -> list[Any]:
    """`1e-3,3e-4` or `[block5,head],[head]` as a list of YAML values. Raises UserError."""
    try:
        return list(parse_yaml(f"[{text}]"))
    except (ValueError, TypeError) as error:
        raise UserError(f"{text}: not a list of values separated by commas: {reason(error)}") from error
