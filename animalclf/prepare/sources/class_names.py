"""Class names that look alike: probably one class under two names."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable

from animalclf.errors import UserError


def check_class_names(names: Iterable[str], data: str) -> None:
    """Raise UserError for names that differ only in spaces at the ends or in their Unicode form (é as one character or
    two), which look the same."""
    for group in _group_by(names, _normal):
        raise UserError(
            f"{data}: the class names {', '.join(map(ascii, group))} differ only in spaces at the ends or "
            "in their Unicode form; give the images of one class the same class name"
        )


def similar_names(names: Iterable[str]) -> list[list[str]]:
    """The names that differ in case, in spaces at the ends or in their Unicode form only, sorted."""
    return _group_by(names, lambda name: _normal(name).casefold())


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()


def _group_by(names: Iterable[str], key: Callable[[str], str]) -> list[list[str]]:
    """The names with the same key, if there are several, sorted."""
    groups = defaultdict(list)
    for name in sorted(names):
        groups[key(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]
