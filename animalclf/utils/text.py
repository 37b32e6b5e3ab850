"""Values in text of the user."""

from __future__ import annotations

from typing import Any

import yaml

from animalclf.errors import UserError


def parse_list(text: str) -> list[Any]:
    """`1e-3,3e-4` or `[block5,head],[head]` as a list of YAML values. Raises UserError."""
    try:
        return list(yaml.safe_load(f"[{text}]"))
    except yaml.YAMLError as error:
        raise UserError(f"{text}: not a list of values separated by commas: {error}") from error
