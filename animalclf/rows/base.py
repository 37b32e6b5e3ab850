"""Base of the rows: to and from plain data, and as an HTML table.

Metadata of a field: `old_keys`: keys of older versions that are read too. `omit_none`: not written if it is None.
`row`: the row class of its value, or of the items of a list. `prefix`: a dict whose items are written as keys of the
row itself, each under prefix + name (metrics, which are registered).
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, Self, get_type_hints

from markupsafe import Markup
from pydantic import TypeAdapter, ValidationError

from animalclf.errors import UserError

OMIT_NONE = {"omit_none": True}
METRIC_TITLES: dict[str, str] = {}  # of the registered metrics, by key: metrics/registry.py adds them


class Row:
    """Base of the row dataclasses: to and from plain data (dicts, lists, numbers, text)."""

    def to_dict(self) -> dict[str, Any]:
        """The row as plain data: field name -> value."""
        content: dict[str, Any] = {}
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if "prefix" in item.metadata:
                content |= {item.metadata["prefix"] + name: _plain(number) for name, number in value.items()}
            elif value is not None or "omit_none" not in item.metadata:
                content[item.name] = _plain(value)
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str = "") -> Self:
        """The row from plain data, also of an older version: old keys are read, missing ones get the defaults, unknown
        ones are ignored (or, if numbers, go to the field with their prefix).

        `source`: the file of `content`, for the error. Raises UserError if `content` is no dict, a key without a
        default is missing, or a value is of another type than its field.
        """
        if not isinstance(content, Mapping):
            raise UserError(_error(cls, source, f"an object with keys is expected, not {content!r:.60}"))
        items = fields(cls)  # type: ignore[arg-type]
        keys = {item.name: _keys(item) for item in items if "prefix" not in item.metadata}
        all_keys = {key for names in keys.values() for key in names}
        values: dict[str, object] = {}
        missing = []
        for item in items:
            row = item.metadata.get("row")
            if "prefix" in item.metadata:
                values[item.name] = _values_with_prefix(content, item.metadata["prefix"], all_keys, row, source)
            elif key := next((key for key in keys[item.name] if key in content), ""):
                values[item.name] = _rows_of(row, content[key], source)
            elif item.default is item.default_factory is MISSING:
                missing.append(item.name)
        if missing:
            raise UserError(_error(cls, source, f"{', '.join(missing)} missing"))
        for name, value in values.items():
            try:
                _adapter(cls, name).validate_python(value)  # type: ignore[arg-type]
            except ValidationError as error:
                raise UserError(_error(cls, source, f"{name} cannot be {value!r:.60}")) from error
        return cls(**values)

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "__repr__" not in vars(cls):  # a dataclass would get a long one, of all fields
            cls.__repr__ = Row.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        """The name of the class, the fields that hold one number or text, and the metrics."""
        values = [*self._scalars(), *((name, value) for name, value, _ in self._metrics())]
        texts = [f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value!r}" for name, value in values]
        return f"{type(self).__name__}({', '.join(texts)})"

    def _repr_html_(self) -> str:
        """For notebooks: the fields that hold one number or text, and the metrics with their intervals, as a table."""
        lines = [(name, value_text(value)) for name, value in self._scalars()]
        metrics = [
            (METRIC_TITLES.get(name, name), value_text(value, interval)) for name, value, interval in self._metrics()
        ]
        return html_table((), [*lines, *metrics])

    def _scalars(self) -> list[tuple[str, str | int | float]]:
        """Name and value of each field that holds one number, or text that is not empty."""
        values = [(item.name, getattr(self, item.name)) for item in fields(self)]  # type: ignore[arg-type]
        return [(name, value) for name, value in values if isinstance(value, str | int | float) and value != ""]

    def _metrics(self) -> list[tuple[str, float, Sequence[float] | None]]:
        """Name, value and interval of each metric."""
        intervals = getattr(self, "intervals", {})
        prefixed = [getattr(self, item.name) for item in fields(self) if "prefix" in item.metadata]  # type: ignore[arg-type]
        return [
            (name, value, intervals.get(name))
            for metrics in prefixed
            for name, value in metrics.items()
            if isinstance(value, int | float)
        ]


def html_table(headings: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """An HTML table; every cell is escaped."""
    rows = [Markup().join(Markup("<td>{}</td>").format(cell) for cell in line) for line in lines]
    if headings:
        rows.insert(0, Markup().join(Markup("<th>{}</th>").format(text) for text in headings))
    return str(Markup("<table>{}</table>").format(Markup().join(Markup("<tr>{}</tr>").format(row) for row in rows)))


def value_text(value: object, interval: Sequence[float] | None = None) -> str:
    """A value as text, a float with 4 decimals, with its interval [low, high] if it has one."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else "")


@functools.cache
def _adapter(row: type[Row], name: str) -> TypeAdapter[Any]:
    """Checks the values of a field."""
    return TypeAdapter(get_type_hints(row)[name])


def _keys(item: Field[Any]) -> list[str]:
    """The keys under which a field is read; a newer one wins over an older one."""
    return [item.name, *item.metadata.get("old_keys", ())]


def _error(row: type[Row], source: str, text: str) -> str:
    if not source:
        return f"{row.__name__}: {text}"
    return f"{source}: {text} ({row.__name__}); restore the file, or run the command that writes it again"


def _values_with_prefix(
    content: Mapping[str, Any], prefix: str, keys: Collection[str], row: type[Row] | None, source: str
) -> dict[str, object]:
    """The numbers of `content` (with `row`: the rows) under keys that begin with `prefix` and are not among the row's
    own `keys`, by the rest of their key."""
    kind = dict if row else int | float
    return {
        key.removeprefix(prefix): _rows_of(row, value, source)
        for key, value in content.items()
        if key.startswith(prefix) and key not in keys and isinstance(value, kind)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Row):
        return value.to_dict()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, dict) else value


def _rows_of(row: type[Row] | None, value: Any, source: str) -> Any:
    if row is None or value is None:
        return value
    return [row.from_dict(item, source) for item in value] if isinstance(value, list) else row.from_dict(value, source)
