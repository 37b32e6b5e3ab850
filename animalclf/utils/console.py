"""What people see while work goes on: one plan line, one live progress line, a line an epoch. Everything goes to standard error."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Any

import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

console = Console(stderr=True, highlight=False)
if not console.is_terminal and "COLUMNS" not in os.environ:
    console = Console(stderr=True, highlight=False, width=120)  # a log has no edge at which tables must be cut
LOG_SECONDS = 60.0  # in a log, from one line of progress to the next


def duration(seconds: float) -> str:
    """Seconds in the form people read: 48 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def since_process_start() -> float:
    """Seconds since this process began, its own start-up and imports included."""
    return time.time() - psutil.Process().create_time()


class TrainingDisplay:
    """Shows the events of a training: a live line where the terminal allows it, and one line for each finished epoch."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.told_at, self.logged_at = epochs, -1e9, 0.0
        self.moments: dict[str, float] = {}  # what began or was ready when, in seconds after this process began
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[speed]}"), console=console, transient=True
        )
        self.line: TaskID = self.progress.add_task("starting the workers", total=None, speed="")

    def __enter__(self) -> TrainingDisplay:
        if console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Take an event of training.train: {"row": a finished epoch}, {"moment": name}, or {"phase", "done", "of", "seconds", "epoch"}."""
        if event.get("moment") in self.moments and "workers" in event:  # after a fault, or where an elastic training grows or shrinks
            console.print(f"the workers started again, {event['workers']} now; finished epochs stay as they are", soft_wrap=True)
        if "row" in event:
            self._epoch(event["row"])
            return
        self.moments.setdefault(event.get("moment", "first step"), since_process_start())
        if "moment" in event:
            return
        speed = event["done"] / max(event["seconds"], 1e-9)
        name = {"features": "features of the frozen base", "val": "validating"}.get(event["phase"], "training")
        where = f"epoch {event['epoch']}/{event['epochs']}  " if "epoch" in event else ""
        left = (event["of"] - event["done"]) / max(speed, 1e-9)
        text = f"{event['done']:,}/{event['of']:,}  {speed:,.0f} pictures/s  {duration(left)} left"
        self.progress.update(self.line, description=f"{where}{name}", completed=event["done"], total=event["of"], speed=text)
        if not console.is_terminal:
            self._log(f"{where}{name}: {text}")

    def _log(self, text: str) -> None:
        """In a log: when the first step was done, and then a line a minute within long epochs."""
        now = time.monotonic()
        if not self.logged_at:
            startup = self.startup()
            parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in startup.items() if name != "total")
            console.print(f"first step after {duration(startup['total'])} ({parts})", soft_wrap=True)
        elif now - self.logged_at < LOG_SECONDS:
            return
        else:
            console.print(text, soft_wrap=True)
        self.logged_at = now

    def startup(self) -> dict[str, float]:
        """Seconds of each part of the start, in their order, and `total`: from the process's beginning to the end of the first step."""
        names = {"pictures": "pictures ready", "ray": "ray ready", "workers": "workers ready", "first step": "first step"}
        parts, before = {}, 0.0
        for name, moment in names.items():
            if moment in self.moments:
                parts[name], before = self.moments[moment] - before, self.moments[moment]
        return {**parts, "total": before}

    def _epoch(self, row: dict[str, Any]) -> None:
        now = time.monotonic()
        if now - self.told_at < 1 and row["epoch"] < self.epochs:
            return  # epochs of a head on kept features take hundredths of a second
        self.told_at = self.logged_at = now
        parts = [f"epoch {row['epoch']:>3}/{self.epochs}", f"train loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.4f}"]
        if "val_loss" in row:
            parts.append(f"val loss {row['val_loss']:.4f} accuracy {row['val_accuracy']:.4f} balanced {row['val_balanced_accuracy']:.4f}")
        waiting = f", {row['wait_share']:.0%} waiting for data" if row["wait_share"] >= 0.05 else ""
        left = (self.epochs - row["epoch"]) * (row["seconds"] - row.get("features_seconds", 0.0))
        parts.append(f"{row['pictures_per_s']:,.0f} pictures/s{waiting}, {duration(left)} left")
        console.print(" | ".join(parts), soft_wrap=True)


IN_THE_LOOP = {
    "features": "features of the frozen base",
    "step": "in steps",
    "validate": "validating",
    "wait": "waiting for pictures",
    "handover": "handing them over",
    "keep": "keeping checkpoints",
}


def results_table(result: dict[str, Any]) -> Table:
    """The end of a training in one table."""
    table = Table(title=f"{result['recipe']}, seed {result['seed']}", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for split in ("val", "test"):
        if split in result:
            found = result[split]
            for name, title in (("accuracy", "accuracy"), ("balanced_accuracy", "balanced accuracy"), ("macro_f1", "macro F1")):
                low, high = found["intervals"][name]
                table.add_row(f"{split} {title}", f"{found[name]:.4f}  (95 %: {low:.4f} to {high:.4f})")
            table.add_row(f"{split} loss", f"{found['loss']:.4f}")
            table.add_row(f"{split} calibration error", f"{found['ece']:.4f}")
    table.add_row("best epoch", f"{result['best_epoch']} of {result['epochs']}")
    table.add_row("rows", ", ".join(f"{split} {rows:,}" for split, rows in result["rows"].items() if rows))
    speed = f"{result['pictures_per_s']:,.0f} pictures/s, {result['wait_share']:.1%} waiting for data"
    table.add_row("epochs took", f"{duration(result['seconds'])}, {speed}")
    parts = result.get("time", {})
    if parts:
        shown = [name for name in IN_THE_LOOP if parts.get(name, 0) >= 0.5 or name in ("step", "wait")]
        inside = ", ".join(f"{duration(parts[name])} {IN_THE_LOOP[name]}" for name in shown)
        table.add_row("of that", f"{inside}; input tasks beside: {duration(parts['read'])} reading, {duration(parts['augment'])} augmenting")
    if "startup" in result:
        *each, (_, total) = result["startup"].items()
        table.add_row("start to first step", f"{duration(total)} ({', '.join(f'{name} {duration(seconds)}' for name, seconds in each)})")
    table.add_row("workers", f"{result['workers']}, {result['precision']}")
    table.add_row("run", result["run"])
    return table
