"""Text that users write as values, and errors of libraries as one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from animalclf.errors import UserError

MAX_REASON = 200  # characters
MAX_SHOWN = 80  # characters of a value in a message
MAX_YAML = 4_000_000  # characters
MAX_NODES = 1_000_000  # values in YAML text, those that an alias repeats included


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


def parse_yaml(text: str, loader: Any = yaml.SafeLoader) -> Any:
    """The value of YAML text. `loader`: a kind of SafeLoader, which creates plain values only: a tag of another kind
    (!!python/object) is an error. Raises ValueError with a reason in one line, also for more than MAX_NODES values:
    aliases of aliases would fill the memory."""
    if len(text) > MAX_YAML:
        raise ValueError(f"{len(text):,} characters, at most {MAX_YAML:,} are read")
    try:
        document = loader(text)
        try:
            node = document.get_single_node()
            if node is None:
                return None
            if _count_nodes(node, {}) > MAX_NODES:
                raise ValueError(f"more than {MAX_NODES:,} values, or an alias of itself")
            return document.construct_document(node)
        finally:
            document.dispose()
    except Exception as error:  # constructors of values raise errors of many types
        raise ValueError(reason(error)) from error


def _count_nodes(node: yaml.Node, counts: dict[int, int]) -> int:
    """The number of values in `node`, each as often as an alias repeats it. `counts`: by node."""
    if id(node) not in counts:
        counts[id(node)] = MAX_NODES + 1  # of an alias of this node within it
        parts = () if isinstance(node, yaml.ScalarNode) else node.value
        children = (child for part in parts for child in (part if isinstance(part, tuple) else (part,)))
        counts[id(node)] = 1 + sum(_count_nodes(child, counts) for child in children)
    return counts[id(node)]


def parse_list(text: str) -> list[Any]:
    """`1e-3,3e-4` or `[block5,head],[head]` as a list of YAML values. Raises UserError."""
    try:
        return list(parse_yaml(f"[{text}]"))
    except (ValueError, TypeError) as error:
        raise UserError(f"{cut(text)}: not a list of values separated by commas: {reason(error)}") from error


def name_difference(names: Sequence[str], others: Sequence[str], only_names: str, only_others: str) -> str:
    """How two unequal lists of names differ, such as "only here: dog; only there: cow"; `only_names` and `only_others`
    precede the names that only one of them has."""
    extra, missing = ([name for name in a if name not in b] for a, b in ((names, others), (others, names)))
    parts = [f"{label}: {', '.join(part)}" for label, part in ((only_names, extra), (only_others, missing)) if part]
    return "; ".join(parts) or "the same names in another order"
