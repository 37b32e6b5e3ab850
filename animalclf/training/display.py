"""What people see of a training: a live progress line, a line for each epoch, and a table of the result. To standard
error."""

from __future__ import annotations

from types import TracebackType

from rich.table import Table

from animalclf.metrics.text import epoch_text, metric_lines
from animalclf.rows import EpochEnd, EpochRow, Moment, PhaseProgress, ProgressEvent, TrainingResult
from animalclf.utils.caller import seconds_since_start
from animalclf.utils.console import console, duration
from animalclf.utils.progress import LOG_SECONDS, ProgressLine, progress_text
from animalclf.utils.throttle import Throttle

PHASES = {"features": "features of the frozen base", "train": "training", "val": "validating"}
STARTUP = {
    "images": "images ready",
    "ray": "ray ready",
    "workers": "workers ready",
    "first step": "first step",
}  # part -> the moment it ends
EPOCH_LINE_SECONDS = 1.0  # between two lines of epochs; those of a head on cached features take hundredths


class TrainingDisplay:
    """`with TrainingDisplay(epochs) as display:` shows the events that `display.show` gets."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.moments: dict[str, float] = {}  # name -> seconds after the command or call began
        self.line = ProgressLine()
        self.epoch_lines, self.log_lines, self.logged = Throttle(EPOCH_LINE_SECONDS), Throttle(LOG_SECONDS), False

    def __enter__(self) -> TrainingDisplay:
        self.line.__enter__()
        self.line.describe("starting the workers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.line.__exit__(kind, error, trace)

    def show(self, event: ProgressEvent) -> None:
        """Take an event of training.train or of the driver."""
        match event:
            case EpochEnd():
                self._epoch(event.row)
            case Moment():
                if (
                    event.moment in self.moments and event.workers is not None
                ):  # after a fault, or where an elastic training is resized
                    console.print(
                        f"the workers started again, {event.workers} now; finished epochs stay as they are",
                        soft_wrap=True,
                    )
                self.moments.setdefault(event.moment, seconds_since_start())
            case PhaseProgress():
                self.moments.setdefault("first step", seconds_since_start())
                self._progress(event)

    def _progress(self, event: PhaseProgress) -> None:
        where = "" if event.epoch is None else f"epoch {event.epoch}/{event.epochs}  "
        description = f"{where}{PHASES[event.phase]}"
        text = progress_text(event.done, event.total, event.seconds)
        self.line.describe(description, text, event.done, event.total)
        if self.line.live:
            return
        if not self.logged:
            startup = self.startup()
            parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in startup.items() if name != "total")
            console.print(f"first step after {duration(startup['total'])} ({parts})", soft_wrap=True)
            self.logged = True
            self.log_lines.reset()
        elif self.log_lines.ready():
            console.print(f"{description}: {text}", soft_wrap=True)

    def startup(self) -> dict[str, float]:
        """Seconds of each part of the start, in their order, and `total`: from the beginning of the command or call to
        the end of the first step."""
        parts, before = {}, 0.0
        for part, moment in STARTUP.items():
            if moment in self.moments:
                parts[part], before = self.moments[moment] - before, self.moments[moment]
        return {**parts, "total": before}

    def _epoch(self, row: EpochRow) -> None:
        if not self.epoch_lines.ready(always=row.epoch >= self.epochs):
            return
        self.log_lines.reset()
        parts = [
            f"epoch {row.epoch:>3}/{self.epochs}",
            f"train loss {row.train_loss:.4f} accuracy {row.train_accuracy:.4f}",
        ]
        if row.val:
            parts.append(f"val {epoch_text(row.val)}")
        waiting = f", {row.wait_fraction:.0%} waiting for data" if row.wait_fraction >= 0.05 else ""
        left = (self.epochs - row.epoch) * (row.seconds - (row.features_seconds or 0.0))
        parts.append(f"{row.images_per_s:,.0f} images/s{waiting}, {duration(left)} left")
        console.print(" | ".join(parts), soft_wrap=True)


TIME_PARTS = {
    "features": "features of the frozen base",
    "step": "in steps",
    "validate": "validating",
    "wait": "waiting for data",
    "copy": "copying to the device",
    "checkpoint": "checkpointing",
}


def results_table(result: TrainingResult) -> Table:
    """The end of a training in one table."""
    table = Table(title=f"{result.recipe}, seed {result.seed}", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for split, evaluation in (("val", result.val), ("test", result.test)):
        for line in metric_lines(evaluation, headline=True) if evaluation else []:
            table.add_row(f"{split} {line.title}", line.text)
    table.add_row("best epoch", f"{result.best_epoch} of {result.epochs}")
    table.add_row("rows", ", ".join(f"{split} {rows:,}" for split, rows in result.rows.items() if rows))
    speed = f"{result.images_per_s:,.0f} images/s, {result.wait_fraction:.1%} waiting for data"
    table.add_row("epochs took", f"{duration(result.seconds)}, {speed}")
    if result.time:
        spent = {name: getattr(result.time, name) for name in TIME_PARTS}
        shown = [name for name, seconds in spent.items() if seconds >= 0.5 or name in ("step", "wait")]
        inside = ", ".join(f"{duration(spent[name])} {TIME_PARTS[name]}" for name in shown)
        table.add_row(
            "of that",
            f"{inside}; input tasks beside: {duration(result.time.read)} reading, "
            f"{duration(result.time.augment)} augmenting",
        )
    if result.startup:
        *each, (_, total) = result.startup.items()
        table.add_row(
            "start to first step",
            f"{duration(total)} ({', '.join(f'{name} {duration(seconds)}' for name, seconds in each)})",
        )
    table.add_row("workers", f"{result.workers}, {result.precision}")
    table.add_row("run", result.run)
    return table
