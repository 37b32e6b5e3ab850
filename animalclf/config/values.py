"""The types of configuration values: what each takes beyond pydantic's own rules, such as text for a number."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, Strict
from pydantic_core import core_schema

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)


def as_number(value: Any) -> Any:
    """Text and NumPy scalars as a float (PyYAML reads 1e-4 as text). Raises ValueError for a bool, which pydantic would
    take for 0 or 1, and for more than 64 bits."""
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) >= 2**64):
        raise ValueError("not a number of 64 bits")
    try:
        return value if isinstance(value, int) else float(value)
    except (TypeError, ValueError):
        return value


def as_text(value: Any) -> Any:
    """Numbers as text, and YAML's null as "none"."""
    if value is None:
        return "none"
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def as_name(value: Any) -> Any:
    """As `as_text`, but YAML's null is the empty name, which a new run cannot have."""
    return "" if value is None else as_text(value)


def as_list(value: Any) -> Any:
    """A single value as a list."""
    return value if isinstance(value, list | tuple) else [value]


@dataclasses.dataclass(frozen=True)
class Registered:
    """Marks a key whose values are the names of registered entries, as they are when a value is read."""

    names: Callable[[], list[str]]
    docs: Callable[[], dict[str, str]] = dict
    """The documentation of entries by name, which follows that of the key."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check_name, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"enum": self.names()}

    def _check_name(self, name: str) -> str:
        if name not in self.names():
            raise ValueError(f"unknown name {name!r}")
        return name


Integer = Annotated[int, BeforeValidator(as_number)]
Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(as_number)]
NumberOrInf = Annotated[float, BeforeValidator(as_number)]
Seed = Annotated[Integer, Field(ge=0, lt=2**63)]  # what PyTorch and NumPy take
Text = Annotated[str, BeforeValidator(as_text)]
Name = Annotated[str, BeforeValidator(as_name)]
Flag = Annotated[bool, Strict()]
TextList = Annotated[tuple[Text, ...], BeforeValidator(as_list)]
Factor = Annotated[Number, Field(gt=0)]
Factors = Annotated[tuple[Factor, Factor], BeforeValidator(as_list)]
Fraction = Annotated[Number, Field(gt=0, le=1)]
Fractions = Annotated[tuple[Fraction, Fraction], BeforeValidator(as_list)]
