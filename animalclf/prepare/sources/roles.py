"""Names of splits, in any spelling, in folders and tables."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, NamedTuple, cast

Role = Literal["train", "val", "test", "predict"]

_ROLE = re.compile(
    r"(?:(?P<train>train|training)|(?P<val>val|valid|validation|validate|dev|eval|evaluation)|(?P<test>test|tests|testing)"
    r"|(?P<predict>pred|predict|prediction|predictions|unlabelled|unlabeled))"
    r"(?:set|sets|data|split|images|image|imgs|img|pics|photos|pictures)?"
)
_NEUTRAL = frozenset(
    [
        "set",
        "sets",
        "data",
        "dataset",
        "split",
        "subset",
        "part",
        "images",
        "image",
        "imgs",
        "img",
        "pics",
        "photos",
        "pictures",
        "files",
        "folder",
        "dir",
    ]
)


class SplitName(NamedTuple):
    """The split that a name means, or None, and the words that do not belong to it: ("train", ("seg",)) of
    seg_train."""

    role: Role | None
    rest: tuple[str, ...]


def split_name(name: str) -> SplitName:
    """The meaning of a folder's name: its first or last word is the role, as in Training, TEST_IMAGES, valSet,
    train2017, seg_train."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    words = re.findall(r"[^\W\d_]+", spaced.lower())
    roles = {role for role in map(_word_role, words[:1] + words[-1:]) if role}
    rest = tuple(word for word in words if word not in _NEUTRAL and not _word_role(word))
    return SplitName(roles.pop() if len(roles) == 1 else None, rest)


def role_of(name: str) -> Role | None:
    """The split that a name means on its own: train, Training, TEST_IMAGES, train2017, but not seg_train. None for
    other names."""
    role, rest = split_name(name)
    return None if rest else role


def is_neutral(name: str) -> bool:
    """Whether a name is neither a split's nor a class's: images, data, imgs."""
    return split_name(name) == (None, ()) and any(letter.isalpha() for letter in name)


def _word_role(word: str) -> Role | None:
    match = _ROLE.fullmatch(word)
    return cast(Role, match.lastgroup) if match else None
