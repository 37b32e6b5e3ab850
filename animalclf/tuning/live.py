"""What people see while a comparison runs: a live table of its trials where the terminal allows it, plain lines elsewhere. To standard error."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from animalclf.tuning.spec import Trial, monitored_metric
from animalclf.utils.console import LOG_SECONDS, duration
from animalclf.utils.console import console as stderr

ORDER = ("running", "failed", "interrupted", "finished", "stopped", "waiting")
COLOURS = {"running": "cyan", "failed": "red", "interrupted": "yellow", "finished": "green", "stopped": "yellow", "waiting": "dim"}
QUIET = 1.0  # seconds from one plain line of a trial to its next: epochs of a head on kept features take hundredths
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
    speed: float = 0.0  # pictures/s
    doing: str = ""
    share: float = 0.0  # of the running epoch
    told: int = 0  # the epoch of the last plain line
    told_at: float = -1e9
    logged_at: float = -1e9  # the last plain line of either kind

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
        self.monitor, mode = monitored_metric(trials[0].config)
        self.better = min if mode == "min" else max
        self.epochs = {trial.slug: trial.config.train.epochs for trial in trials}
        self.lines: dict[str, Line] = {}
        self.live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")

    def __enter__(self) -> LiveTable:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.live.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Take an event of `compare`: {"trial": slug, ...} with a state, a finished epoch ("row"), or the progress of a phase."""
        slug = event["trial"]
        line = self.lines.setdefault(slug, Line(slug, 0, self.epochs.get(slug, max(self.epochs.values()))))
        if "state" in event:
            before, line.state = line.state, event["state"]
            line.name, line.seed, line.reason = event["name"], event["seed"], event["reason"]
            line.epoch, line.best, line.doing, line.share = event["epochs"], event["best"], "", 0.0
            if before != line.state and line.state != "running":
                self._say_end(line)
        elif "row" in event:
            row = event["row"]
            line.epoch, line.speed, line.share = row["epoch"], row["pictures_per_s"], 0.0
            line.seconds = row["seconds"] - row.get("features_seconds", 0.0)
            if self.monitor in row:
                line.best = row[self.monitor] if line.best is None else self.better(line.best, row[self.monitor])
            self._say_epoch(line, row)
        elif "phase" in event:
            line.speed = event["done"] / max(event["seconds"], 1e-9)
            line.doing = {"features": "features", "val": "validating"}.get(event["phase"], "training")
            line.share = event["done"] / max(event["of"], 1) if event["phase"] == "train" else 1.0 if event["phase"] == "val" else 0.0
            self._say_progress(line, event)
        if self.live.is_started:
            self.live.update(self.table(), refresh=True)

    def table(self) -> Table:
        """The trials, those at work first, as many as fit on the screen."""
        table = Table(title=self._title(), title_justify="left", title_style="", header_style="bold")
        for heading, justify in (("trial", "left"), ("seed", "right"), ("state", "left"), ("epoch", "right"), (f"best {self.monitor[4:]}", "right"),
                                 ("pictures/s", "right"), ("time left", "right")):  # fmt: skip
            table.add_column(heading, justify=justify, no_wrap=heading != "trial")  # type: ignore[arg-type]
        lines = sorted(self.lines.values(), key=lambda line: ORDER.index(line.state))
        fitting = max(3, self.console.height - AROUND)
        for line in lines[:fitting]:
            left = "" if line.left is None else duration(line.left)
            state = f"[{COLOURS[line.state]}]{line.doing or line.state}[/]" + (f" {escape(line.reason[:60])}" if line.state == "failed" else "")
            speed = f"{line.speed:,.0f}" if line.state == "running" and line.speed else ""
            best = "" if line.best is None else f"{line.best:.4f}"
            table.add_row(escape(line.name), str(line.seed), state, f"{line.epoch}/{line.epochs}", best, speed, left)
        if len(lines) > fitting:
            table.caption = f"and {len(lines) - fitting} more"
        return table

    def _title(self) -> str:
        counts = {state: sum(line.state == state for line in self.lines.values()) for state in ORDER}
        return ", ".join(f"{count} {state}" for state, count in counts.items() if count) + f"; {duration(time.monotonic() - self.began)} so far"

    def _say_epoch(self, line: Line, row: dict[str, Any]) -> None:
        """Without a terminal: one line a trial and epoch, also where an epoch is repeated after a fault."""
        now = time.monotonic()
        if self.live.is_started or line.epoch <= line.told or (now - line.told_at < QUIET and line.epoch < line.epochs):
            return
        line.told = line.epoch
        line.told_at = line.logged_at = now
        value = f" | val {self.monitor[4:]} {row[self.monitor]:.4f}, best {line.best:.4f}" if self.monitor in row else ""
        left = "" if line.left is None else f", {duration(line.left)} left"
        self._print(
            f"{_label(line)}: epoch {line.epoch}/{line.epochs} | train loss {row['train_loss']:.4f}{value} | {line.speed:,.0f} pictures/s{left}"
        )

    def _say_progress(self, line: Line, event: dict[str, Any]) -> None:
        """Without a terminal: that a trial has begun, and then a line a minute within long epochs."""
        now = time.monotonic()
        if self.live.is_started or now - line.logged_at < LOG_SECONDS:
            return
        line.logged_at = now
        where = f"epoch {line.epoch + 1}/{line.epochs} {line.doing}, {event['done']:,} of {event['of']:,} pictures"
        self._print(f"{_label(line)}: {where} | {line.speed:,.0f} pictures/s")

    def _say_end(self, line: Line) -> None:
        if line.state in ("finished", "stopped", "failed"):
            best = "" if line.best is None else f", best {self.monitor[4:]} {line.best:.4f}"
            why = f": {line.reason}" if line.reason else ""
            self._print(f"{_label(line)}: {line.state} after {line.epoch} epochs{best}{why}")

    def _print(self, text: str) -> None:
        self.console.print(escape(text), soft_wrap=True)


def _label(line: Line) -> str:
    return f"{line.name}, seed {line.seed}"
