"""What people see while a comparison runs: a live table of its trials where the terminal allows it, plain lines elsewhere. To standard error."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from animalclf.rows import EpochEnd, EpochRow, PhaseProgress, TrialEntry, TrialProgress
from animalclf.tuning.spec import Trial, monitored_metric
from animalclf.utils.console import console as stderr
from animalclf.utils.console import duration
from animalclf.utils.progress import LOG_SECONDS, is_watched
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
DOING = {"features": "features", "val": "validating"}
EPOCH_LINE_SECONDS = (
    1.0  # between two plain lines of a trial's epochs; those of a head on cached features take hundredths
)
AROUND = 8  # lines of the terminal that the table leaves to its own frame and to what stands above


@dataclass
class Line:
    """A trial as it stands."""

    name: str
    seed: int
    epochs: int = 0  # of the whole training; 0 = unknown
    state: str = "waiting"
    reason: str = ""
    epoch: int = 0  # finished
    best: float | None = None
    seconds: float = 0.0  # of the last epoch
    speed: float = 0.0  # images/s
    doing: str = ""
    share: float = 0.0  # of the running epoch
    logged_epoch: int = 0  # of the last plain line
    epoch_lines: Throttle = field(default_factory=lambda: Throttle(EPOCH_LINE_SECONDS))
    progress_lines: Throttle = field(default_factory=lambda: Throttle(LOG_SECONDS))

    @property
    def left(self) -> float | None:
        """Seconds to the last epoch, once an epoch has been seen."""
        if self.state != "running" or not self.seconds or not self.epochs:
            return None
        return max(self.epochs - self.epoch - self.share, 0) * self.seconds


class LiveTable:
    """`with LiveTable(spec.trials) as table: compare(spec, ..., show=table.show)`."""

    def __init__(self, trials: Sequence[Trial], console: Console = stderr) -> None:
        self.console, self.began = console, time.monotonic()
        key, mode = monitored_metric(trials[0].config)
        self.monitor = key.removeprefix("val_")
        self.better = min if mode == "min" else max
        self.epochs = {trial.slug: trial.config.train.epochs for trial in trials}
        self.lines: dict[str, Line] = {}
        self.live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")

    def __enter__(self) -> LiveTable:
        if is_watched(self.console):
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()

    def show(self, event: TrialProgress | TrialEntry) -> None:
        """Take an event of `compare`: the progress of a trial, or its changed state."""
        slug = event.trial if isinstance(event, TrialProgress) else event.slug
        line = self.lines.setdefault(slug, Line(slug, 0, self.epochs.get(slug, max(self.epochs.values()))))
        if not isinstance(event, TrialProgress):
            self._state(line, event)
        elif isinstance(event.event, EpochEnd):
            self._epoch(line, event.event.row)
        elif isinstance(event.event, PhaseProgress):
            self._progress(line, event.event)
        if self.live.is_started:
            self.live.update(self.table(), refresh=True)

    def _state(self, line: Line, entry: TrialEntry) -> None:
        before, line.state = line.state, entry.state
        line.name, line.seed, line.reason = entry.name, entry.seed, entry.reason
        line.epoch, line.best, line.doing, line.share = entry.epochs, entry.best, "", 0.0
        if before != line.state and line.state in ("finished", "stopped", "failed"):
            best = "" if line.best is None else f", best {self.monitor} {line.best:.4f}"
            reason = f": {line.reason}" if line.reason else ""
            self._print(f"{_label(line)}: {line.state} after {line.epoch} epochs{best}{reason}")

    def _epoch(self, line: Line, row: EpochRow) -> None:
        """Without a terminal: one line a trial and epoch, also where an epoch is repeated after a fault."""
        line.epoch, line.speed, line.share = row.epoch, row.images_per_s, 0.0
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
        metric = "" if value is None else f" | val {self.monitor} {value:.4f}, best {line.best:.4f}"
        left = "" if line.left is None else f", {duration(line.left)} left"
        where = f"{_label(line)}: epoch {line.epoch}/{line.epochs}"
        self._print(f"{where} | train loss {row.train_loss:.4f}{metric} | {line.speed:,.0f} images/s{left}")

    def _progress(self, line: Line, event: PhaseProgress) -> None:
        """Without a terminal: that a trial has begun, and then a line a minute within long epochs."""
        line.speed = event.done / max(event.seconds, 1e-9)
        line.doing = DOING.get(event.phase, "training")
        line.share = {"train": event.done / max(event.total, 1), "val": 1.0}.get(event.phase, 0.0)
        if not self.live.is_started and line.progress_lines.ready():
            where = f"epoch {line.epoch + 1}/{line.epochs} {line.doing}, {event.done:,} of {event.total:,} images"
            self._print(f"{_label(line)}: {where} | {line.speed:,.0f} images/s")

    def table(self) -> Table:
        """The trials, those at work first, as many as fit on the screen."""
        table = Table(title=self._title(), title_justify="left", title_style="", header_style="bold")
        for heading, justify in (("trial", "left"), ("seed", "right"), ("state", "left"), ("epoch", "right"), (f"best {self.monitor}", "right"),
                                 ("images/s", "right"), ("time left", "right")):  # fmt: skip
            table.add_column(heading, justify=justify, no_wrap=heading != "trial")  # type: ignore[arg-type]
        lines = sorted(self.lines.values(), key=lambda line: ORDER.index(line.state))
        fitting = max(3, self.console.height - AROUND)
        for line in lines[:fitting]:
            left = "" if line.left is None else duration(line.left)
            state = f"[{COLOURS[line.state]}]{line.doing or line.state}[/]" + (
                f" {escape(line.reason[:60])}" if line.state == "failed" else ""
            )
            speed = f"{line.speed:,.0f}" if line.state == "running" and line.speed else ""
            best = "" if line.best is None else f"{line.best:.4f}"
            table.add_row(escape(line.name), str(line.seed), state, f"{line.epoch}/{line.epochs}", best, speed, left)
        if len(lines) > fitting:
            table.caption = f"and {len(lines) - fitting} more"
        return table

    def _title(self) -> str:
        counts = {state: sum(line.state == state for line in self.lines.values()) for state in ORDER}
        return (
            ", ".join(f"{count} {state}" for state, count in counts.items() if count)
            + f"; {duration(time.monotonic() - self.began)} so far"
        )

    def _print(self, text: str) -> None:
        self.console.print(escape(text), soft_wrap=True)


def _label(line: Line) -> str:
    return f"{line.name}, seed {line.seed}"
