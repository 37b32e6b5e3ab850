r"""Names of local files as text that every file and console can hold: bytes that are not UTF-8, control characters and
line separators are written as \xff. And the names of skipped files in messages."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence

from animalclf.errors import UserError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
_OTHER = ("Cc", "Cs", "Zl", "Zp")  # categories of characters
_ESCAPE = re.compile(rb"\\x(0[1-9a-f]|1[0-9a-f]|7f|[89a-f][0-9a-f])")  # of what `as_text` escapes


def is_text(name: str) -> bool:
    """Whether a name has no control characters, no line breaks and no bytes that are not UTF-8."""
    return name.isprintable() or not any(unicodedata.category(letter) in _OTHER for letter in name)


def as_text(name: str) -> str:
    """The name of a file, as Python decodes it, with escapes."""
    if is_text(name):
        return name
    return "".join(_escaped(letter) if unicodedata.category(letter) in _OTHER else letter for letter in name)


def _escaped(letter: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))


def check_utf8(path: str) -> None:
    """Raise UserError for the path of a folder or file that is not UTF-8: no file of a run could record it."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{as_text(path)}: the path is not UTF-8 text; rename the folder or file") from error


def real_path(path: str) -> str:
    """The path of the local file that `as_text` names: each part as it is if that exists, else without escapes."""
    if "\\x" not in path or os.path.lexists(path):
        return path
    real = ""
    for part in path.split("/"):
        if "\\x" in part and not os.path.lexists(f"{real}{part}"):
            part = os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), os.fsencode(part)))
        real += f"{part}/"
    return real[:-1]


def skipped_text(ignored: Sequence[str]) -> str:
    """`skipped: 2 files that are not images, such as notes.txt`; of archives what to do. Empty without files."""
    if not ignored:
        return ""
    files = "1 file that is not an image" if len(ignored) == 1 else f"{len(ignored):,} files that are not images"
    return f"skipped: {files}, such as {skipped_example(ignored)}"


def skipped_example(ignored: Sequence[str]) -> str:
    """An archive with what to do, or the first file."""
    archive = next((path for path in ignored if path.lower().endswith(ARCHIVES)), None)
    return f"{archive}; unpack it" if archive else ignored[0]
