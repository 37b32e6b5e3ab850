"""Progress of long work, on standard error: one live line on a terminal or in a notebook, elsewhere a plain line at an
interval."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Iterator
from functools import partial
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from animalclf.utils import console as output
from animalclf.utils.throttle import Throttle

LOG_SECONDS = 60.0  # between two plain lines


def progress_text(done: int, total: int, seconds: float) -> str:
    """`1,200/4,000  350 images/s  8 s left`: the state of a pass over `total` images after `seconds`."""
    speed = done / max(seconds, 1e-9)
    speed_text = f"  {speed:,.{int(speed < 0.95)}f} images/s" if done else ""
    time_left = f"  {output.duration((total - done) / speed)} left" if 0 < done < total else ""
    return f"{done:,}/{total:,}{speed_text}{time_left}"


class ProgressLine:
    """`with ProgressLine() as line: line.update("reading images", done, total)`.

    Live on a terminal or in a notebook; elsewhere a plain line every `interval` seconds. `enabled=False`: nothing. The
    line of a terminal goes at the end; a notebook has its last state, because the output area cannot go.
    """

    def __init__(self, *, interval: float = LOG_SECONDS, enabled: bool = True) -> None:
        self.enabled, self.live = enabled, enabled and is_watched()
        self._throttle, self._started = Throttle(interval), time.monotonic()
        text_column = partial(TextColumn, markup=False)
        columns = (text_column("{task.description}"), BarColumn(bar_width=24), text_column("{task.fields[text]}"))
        self._bar = Progress(*columns, console=output.console, transient=not output.console.is_jupyter)
        self._task = self._bar.add_task("", total=None, text="")

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar.live.is_started:
            self._bar.refresh()
            with without_empty_output(output.console):
                self._bar.stop()

    def update(self, description: str, done: int, total: int) -> None:
        """Show that `done` of `total` images are done: live, or as a plain line at the interval. `done` 0 starts a
        phase."""
        if not done:
            self._started = time.monotonic()
            self._throttle.reset()
        text = progress_text(done, total, time.monotonic() - self._started)
        self.describe(description, text, done, total)
        if self.enabled and not self.live and self._throttle.ready():
            output.show_line(f"{description}  {text}")

    def describe(self, description: str, text: str = "", done: int = 0, total: int | None = None) -> None:
        """Show this on the live line, if there is one. `total` None: unknown."""
        self._bar.update(self._task, description=description, text=text, completed=done, total=total)
        if self.live and not self._bar.live.is_started:  # not before there is something to show
            self._bar.start()


@contextlib.contextmanager
def without_empty_output(console: Console) -> Iterator[None]:
    """Within the block a console in a notebook prints nothing: the end of a live display is an empty text, which would
    be an empty output of the cell."""
    was_quiet, console.quiet = console.quiet, console.quiet or console.is_jupyter
    try:
        yield
    finally:
        console.quiet = was_quiet


def is_watched(console: Console | None = None) -> bool:
    """Whether `console` (default: standard error) is a terminal, or a notebook with ipywidgets, so that lines can be
    redrawn."""
    console = console or output.console
    return console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)
