"""The console: everything that is meant for people goes to standard error.

Text that is not ours (names, paths, errors of libraries) is printed as it is: markup means nothing, control characters
are escaped, secrets are replaced. So all output goes through `console` or `show_line`; tests/test_console.py checks it.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterable
from functools import partial
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from animalclf.utils.redact import redact

# Without tab and newline. The last two ranges change the direction of text, so that a name looks like another.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class LiteralConsole(Console):
    """A console on which control characters in text, such as ANSI escapes in a file name, are printed as \\x1b, and
    secrets as ***."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(_without_secrets(renderable), options):
            yield segment if segment.control else segment._replace(text=escape_control(segment.text))


def _without_secrets(renderable: RenderableType) -> RenderableType:
    """Text, also that of a table's cell, before it is wrapped into lines."""
    if isinstance(renderable, str):
        return redact(renderable)
    if isinstance(renderable, Text) and (plain := redact(renderable.plain)) != renderable.plain:
        renderable = renderable.copy()
        renderable.plain = plain
    return renderable


def escape_control(text: str) -> str:
    """`text` with escapes in place of control characters, except for tabs and line breaks."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


# Text is printed literally: `[b]` or `:dog:` in a path or a class name is no markup.
_stderr = partial(LiteralConsole, stderr=True, highlight=False, markup=False, emoji=False)

console = _stderr()
if not console.is_terminal and "COLUMNS" not in os.environ:
    console = _stderr(width=120)  # a log file has no width to which tables must be cut


def show_line(text: str, to: Console | None = None) -> None:
    """Print a line for people, not wrapped. Line breaks in it are escaped."""
    (to or console).print(Text(text.replace("\n", "\\n")), soft_wrap=True)


def show_error(text: str, label: str = "error:") -> None:
    """Print a message, of one or more lines, after a red `label`."""
    console.print(Text.assemble((label, "bold red"), " ", text), soft_wrap=True)


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error that nobody caught, as Python does, without secrets: a `sys.excepthook`."""
    sys.stderr.write(escape_control(redact("".join(traceback.format_exception(kind, error, trace)))))


def duration(seconds: float) -> str:
    """Seconds in the form people read: 48 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def short_duration(seconds: float) -> str:
    """As `duration`, below a minute with a tenth, so that parts sum up: 4.8 s."""
    return f"{seconds:.1f} s" if seconds < 59.95 else duration(seconds)
