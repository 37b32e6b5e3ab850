"""YAML that users write: plain values in bounded memory, each key once, numbers in decimal."""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.composer import ComposerError

from animalclf.errors import UserError
from animalclf.utils.text import cut, reason

MAX_CHARACTERS = 4_000_000
MAX_NODES = 1_000_000  # values, those that an alias repeats included
_TEXT, _MERGE, _DATE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge", "tag:yaml.org,2002:timestamp"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
NEXT_LINE = "\x85"
_NOT_DECIMAL = re.compile(r":|^[-+]?0[0-9_]+$")


class PlainLoader(yaml.SafeLoader):
    """YAML 1.1 without its surprises. Keys are text (augment.on is not True, a class may be called 1 or no) and given
    once. What it reads in base 8 (010) or 60 (1:30), or as a date, is text; keys of numbers read text in decimal."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            key.tag = _TEXT
            if key.value in names:
                raise ComposerError(None, None, f"{key.value} is given twice", key.start_mark)
            names.add(key.value)
        return node

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        tag: str = super().resolve(kind, value, implicit)
        return _TEXT if tag == _DATE or (tag in _NUMBERS and _NOT_DECIMAL.search(value)) else tag


def parse_yaml(text: str) -> Any:
    """The value of YAML text: plain values only, a tag of another kind (!!python/object) is an error. Raises ValueError
    with a reason in one line, also for more than MAX_NODES values: aliases of aliases would fill the memory."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text):,} characters, at most {MAX_CHARACTERS:,} are read")
    try:
        document = PlainLoader(text)
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


def dump_yaml(value: Any) -> str:
    """`value` as YAML text that `parse_yaml` reads as `value`."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    # PyYAML writes this line break of Unicode as it is, and reads it as a blank.
    return yaml.safe_dump(value, sort_keys=False) if NEXT_LINE in text else text


def parse_list(text: str) -> list[Any]:
    """`1e-3,3e-4` or `[block5,head],[head]` as a list of YAML values. Raises UserError."""
    try:
        return list(parse_yaml(f"[{text}]"))
    except (ValueError, TypeError) as error:
        raise UserError(f"{cut(text)}: not a list of values separated by commas: {reason(error)}") from error


def _count_nodes(node: yaml.Node, counts: dict[int, int]) -> int:
    """The number of values in `node`, each as often as an alias repeats it. `counts`: by node."""
    if id(node) not in counts:
        counts[id(node)] = MAX_NODES + 1  # of an alias of this node within it
        parts = () if isinstance(node, yaml.ScalarNode) else node.value
        children = (child for part in parts for child in (part if isinstance(part, tuple) else (part,)))
        counts[id(node)] = 1 + sum(_count_nodes(child, counts) for child in children)
    return counts[id(node)]
