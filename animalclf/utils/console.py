"""The console: everything that is meant for people goes to standard error."""

from __future__ import annotations

import os
from functools import partial

from rich.console import Console

# Text is printed literally: `[b]` or `:dog:` in a path or a class name is no markup.
_stderr = partial(Console, stderr=True, highlight=False, markup=False, emoji=False)

console = _stderr()
if not console.is_terminal and "COLUMNS" not in os.environ:
    console = _stderr(width=120)  # a log file has no width to which tables must be cut


def show_line(text: str) -> None:
    """Print a line for people, not wrapped."""
    console.print(text, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds in the form people read: 48 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
