"""The console output of a comparison: a live table of its trials on a terminal, plain lines elsewhere; on
standard error."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from animalclf.metrics import METRICS
from animalclf.rows import EpochEnd, EpochRow, PhaseProgress, TrialEntry, TrialProgress
from animalclf.tuning.spec import Trial, monitored_metric
from animalclf.utils.console import console as stderr
from animalclf.utils.console import duration, show_line
from animalclf.utils.progress import LOG_SECONDS, is_watched, without_empty_output
from animalclf.utils.text import count_text
from animalclf.utils.throttle import Throttle

ORDER = ("running", "failed", "interrupted", "finished", "stopped", "waiting")
COLOURS = {
    "running": "cyan",
    "failed": "red",
    "interrupted": "yellow",
    "finished": "green",
    "stopped": "yellow",
    "waiting": "dim",
}
PHASES = {"features": "features", "heads": "fitting the heads", "train": "training", "val": "validation"}
EPOCH_LINE_SECONDS = 1.0  # between two lines of a trial's epochs, which take 0.01 s for a head on cached features
RESERVED_LINES = 8  # of the terminal, for the frame of the table and the lines above it


@dataclass
class TrialLine:
    """The displayed state of a trial."""

    name: str
    seed: int
    epochs: int = 0  # of the whole training; 0: heads are fitted, in no epochs
    state: str = "waiting"
    reason: str = ""
    epoch: int = 0  # the last finished one
    best: float | None = None
    seconds: float = 0.0  # of the last epoch
    speed: float = 0.0  # images/s
    phase: str = ""
    fraction: float = 0.0  # of the running epoch that is done
    logged_epoch: int = 0  # in the last plain line
    part: str | None = None  # of a training with folds
    epoch_lines: Throttle = field(default_factory=lambda: Throttle(EPOCH_LINE_SECONDS))
    progress_lines: Throttle = field(default_factory=lambda: Throttle(LOG_SECONDS))

    @property
    def left(self) -> float | None:
        """Seconds to the end of the last epoch; None before the first one ended."""
        if self.state != "running" or not self.seconds or not self.epochs:
            return None
        return max(self.epochs - self.epoch - self.fraction, 0) * self.seconds


class LiveTable:
    """`with LiveTable(spec.trials) as table: compare(spec, ..., show=table.show)`."""

    def __init__(self, trials: Sequence[Trial], console: Console = stderr) -> None:
        self.console, self.began = console, time.monotonic()
        key, mode = monitored_metric(trials[0].config)
        self.monitor = key.removeprefix("val_")
        self.monitor_title = METRICS.get(self.monitor).title if self.monitor in METRICS else self.monitor
        self.better = min if mode == "min" else max
        self.epochs = {trial.slug: 0 if trial.config.train.heads else trial.config.train.epochs for trial in trials}
        self.lines: dict[str, TrialLine] = {}
        transient = not console.is_jupyter  # a notebook has the last table: its output area cannot go
        self.live = Live(console=console, auto_refresh=False, transient=transient, vertical_overflow="crop")

    def __enter__(self) -> LiveTable:
        if is_watched(self.console):
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with without_empty_output(self.console):
            self.live.stop()

    def show(self, event: TrialProgress | TrialEntry) -> None:
        """Show an event of `compare`: the progress of a trial, or its changed state."""
        slug = event.trial if isinstance(event, TrialProgress) else event.slug
        epochs = self.epochs.get(slug, max(self.epochs.values()))
        line = self.lines.setdefault(slug, TrialLine(slug, 0, epochs))
        if not isinstance(event, TrialProgress):
            self._show_state(line, event)
        elif isinstance(event.event, EpochEnd):
            self._enter_part(line, event.event.part)
            self._show_epoch(line, event.event.row)
        elif isinstance(event.event, PhaseProgress):
            self._show_progress(line, event.event)
        if self.live.is_started:
            self.live.update(self.table(), refresh=True)

    def _show_state(self, line: TrialLine, entry: TrialEntry) -> None:
        old_state, line.state = line.state, entry.state
        line.name, line.seed, line.reason = entry.name, entry.seed, entry.reason
        line.epoch, line.best, line.phase, line.fraction = entry.epochs, entry.best, "", 0.0
        if old_state != line.state and line.state in ("finished", "stopped", "failed"):
            best = "" if line.best is None else f", best {self.monitor_title} {line.best:.4f}"
            reason = f": {line.reason}" if line.reason else ""
            after = f" after {line.epoch} epoch{'' if line.epoch == 1 else 's'}" if line.epochs else ""
            self._print(f"{_label(line)}: {line.state}{after}{best}{reason}")

    def _enter_part(self, line: TrialLine, part: str | None) -> None:
        """The epochs of each fold begin anew."""
        if part != line.part:
            line.part, line.epoch, line.logged_epoch = part, 0, 0

    def _show_epoch(self, line: TrialLine, row: EpochRow) -> None:
        """Without a terminal: one line for each epoch of a trial, not again if a failure repeats it."""
        line.epoch, line.speed, line.fraction = row.epoch, row.images_per_s, 0.0
        line.seconds = row.seconds - (row.features_seconds or 0.0)
        value = row.val.get(self.monitor)
        if value is not None:
            line.best = value if line.best is None else self.better(line.best, value)
        if (
            self.live.is_started
            or line.epoch <= line.logged_epoch
            or not line.epoch_lines.ready(always=line.epoch >= line.epochs)
        ):
            return
        line.logged_epoch = line.epoch
        line.progress_lines.reset()
        metric = "" if value is None else f" | val {self.monitor_title} {value:.4f}, best {line.best:.4f}"
        left = "" if line.left is None else f", {duration(line.left)} left"
        part = f"{line.part}, " if line.part else ""
        epoch = f"{_label(line)}: {part}" + (f"epoch {line.epoch}/{line.epochs}" if line.epochs else "heads fitted")
        loss = f"{'inner folds' if row.heads else 'train'} loss {row.train_loss:.4f}"
        speed = "" if row.heads else f" | {line.speed:,.0f} images/s{left}"  # heads are fitted on features, at once
        self._print(f"{epoch} | {loss}{metric}{speed}")

    def _show_progress(self, line: TrialLine, event: PhaseProgress) -> None:
        """Without a terminal: a line at the start of a trial, then one line per minute in long epochs."""
        self._enter_part(line, event.part)
        line.speed = 0.0 if event.phase == "heads" else event.done / max(event.seconds, 1e-9)
        line.phase = ", ".join(text for text in (event.part, PHASES.get(event.phase)) if text)
        line.fraction = {"train": event.done / max(event.total, 1), "val": 1.0}.get(event.phase, 0.0)
        if not self.live.is_started and line.progress_lines.ready():
            images = count_text(event.total, "image")
            done = f"{event.done:,} of {images} | {line.speed:,.0f} images/s" if line.speed else images
            epoch = f"epoch {line.epoch + 1}/{line.epochs} " if line.epochs else ""
            self._print(f"{_label(line)}: {epoch}{line.phase}, {done}")

    def table(self) -> Table:
        """The trials, the running ones first, as many as fit on the screen."""
        table = Table(title=self._title(), title_justify="left", title_style="", header_style="bold")
        headings = ("trial", "seed", "state", "epoch", f"best {self.monitor_title}", "images/s", "time left")
        for heading in headings:
            is_text = heading in ("trial", "state")
            table.add_column(heading, justify="left" if is_text else "right", no_wrap=heading != "trial")
        lines = sorted(self.lines.values(), key=lambda line: ORDER.index(line.state))
        fitting = max(3, self.console.height - RESERVED_LINES)
        for line in lines[:fitting]:
            left = "" if line.left is None else duration(line.left)
            reason = f" {line.reason[:60]}" if line.state == "failed" else ""
            state = Text.assemble((line.phase or line.state, COLOURS[line.state]), reason)
            speed = f"{line.speed:,.0f}" if line.state == "running" and line.speed else ""
            best = "" if line.best is None else f"{line.best:.4f}"
            epoch = f"{line.epoch}/{line.epochs}" if line.epochs else ""
            table.add_row(Text(line.name), str(line.seed), state, epoch, best, speed, left)
        if len(lines) > fitting:
            table.caption = f"and {len(lines) - fitting} more"
        return table

    def _title(self) -> str:
        counts = {state: sum(line.state == state for line in self.lines.values()) for state in ORDER}
        states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        return f"{states}; {duration(time.monotonic() - self.began)} elapsed"

    def _print(self, text: str) -> None:
        show_line(text, to=self.console)


def _label(line: TrialLine) -> str:
    return f"{line.name}, seed {line.seed}"
