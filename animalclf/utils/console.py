"""The console: everything that is meant for people goes to standard error."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import partial

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from animalclf.utils.redact import redact

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # without tab and newline


class LiteralConsole(Console):
    """A console on which control characters in text, such as ANSI escapes in a file name, are printed as \\x1b."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escape_control(segment.text))


def escape_control(text: str) -> str:
    """`text` with escapes in place of control characters, except for tabs and line breaks."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


# Text is printed literally: `[b]` or `:dog:` in a path or a class name is no markup.
_stderr = partial(LiteralConsole, stderr=True, highlight=False, markup=False, emoji=False)

console = _stderr()
if not console.is_terminal and "COLUMNS" not in os.environ:
    console = _stderr(width=120)  # a log file has no width to which tables must be cut


def show_line(text: str) -> None:
    """Print a line for people, not wrapped and without secrets. Line breaks in it are escaped."""
    console.print(redact(text).replace("\n", "\\n"), soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds in the form people read: 48 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
