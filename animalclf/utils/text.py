"""Text that users write as values, and errors of libraries as one line of text."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

MAX_REASON = 200  # characters
MAX_SHOWN = 80  # characters of a value in a message


def reason(error: BaseException) -> str:
    """What is wrong, in one printable line: the first line of the error's text, or its type's name if it has no
    text; of a YAML error the problem and its line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        text = f"line {error.problem_mark.line + 1}: {error.problem}"
    else:
        text = next(iter(str(error).strip().splitlines()), "")
    return "".join(filter(str.isprintable, text))[:MAX_REASON] or type(error).__name__


def printable(text: str) -> str:
    """`text`, with escapes if it has line breaks or other characters that cannot be printed."""
    return text if text.isprintable() else ascii(text)[1:-1]


def cut(text: str) -> str:
    """`text`, or its first MAX_SHOWN characters."""
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def shown(value: object) -> str:
    """A value of the user as a message shows it: its `repr`, cut after MAX_SHOWN characters."""
    try:
        return cut(repr(value))
    except ValueError:  # an int of more digits than Python prints
        return "a number of very many digits"


def count_text(number: int, noun: str) -> str:
    """`1 trial`, `3 trials`, `2 classes`."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending if number != 1 else ''}"


def count_clause(number: int, noun: str, clause: str) -> str:
    """`1 row has no label`, `3 rows have no label`: `clause` begins with the verb of the plural."""
    verb, _, rest = clause.partition(" ")
    if number == 1:
        verb = {"are": "is", "have": "has"}.get(verb, f"{verb}s")
    return f"{count_text(number, noun)} {verb} {rest}"


def size_text(size: float) -> str:
    """`1.2 GB`, `340 MB`, `12 kB`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.{1 if size < 10 * unit else 0}f} {name}"
    return f"{size:.0f} B"


def percent(value: float, digits: int = 1) -> str:
    """`93.3 %` of the fraction 0.933."""
    return f"{100 * value:.{digits}f} %"


def name_difference(names: Sequence[str], others: Sequence[str], only_names: str, only_others: str) -> str:
    """How two unequal lists of names differ, such as "only here: dog; only there: cow"; `only_names` and `only_others`
    precede the names that only one of them has."""
    extra, missing = ([name for name in a if name not in b] for a, b in ((names, others), (others, names)))
    parts = [f"{label}: {', '.join(part)}" for label, part in ((only_names, extra), (only_others, missing)) if part]
    return "; ".join(parts) or "the same names in another order"
