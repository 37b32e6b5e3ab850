"""The console output of a training: a progress line, a line for each epoch, a table of the result; on standard
error."""

from __future__ import annotations

from types import TracebackType

from rich.table import Table
from rich.text import Text

from animalclf.metrics import METRICS, PRIMARY
from animalclf.metrics.text import epoch_text, metric_lines
from animalclf.rows import EpochEnd, EpochRow, PhaseProgress, ProgressEvent, StartupEvent, TimeSpent, TrainingResult
from animalclf.utils.caller import seconds_since_start
from animalclf.utils.console import duration, short_duration, show_line
from animalclf.utils.progress import LOG_SECONDS, ProgressLine, progress_text
from animalclf.utils.text import count_text, percent
from animalclf.utils.throttle import Throttle

PHASES = {
    "features": "features of the frozen base",
    "heads": "fitting the heads",
    "train": "training",
    "val": "validation",
}
STARTUP_PHASES = {"images": "images", "ray": "Ray", "workers": "workers"}  # in their order; the first step follows
FIRST_LOG_SECONDS = 5.0  # between the first plain lines of progress; each further interval is twice as long
TIME_PARTS = {
    "features": "features of the frozen base",
    "step": "in steps",
    "validate": "validating",
    "wait": "waiting for data",
    "copy": "copying to the device",
    "checkpoint": "checkpointing",
}
EPOCH_LINE_SECONDS = 1.0  # between two lines of epochs, which take 0.01 s for a head on cached features


class TrainingDisplay:
    """`with TrainingDisplay(epochs) as display:` shows the events that `display.show` receives."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.phase_ends: dict[str, float] = {}  # startup phase -> seconds since the command or call began
        self.line = ProgressLine()
        self.epoch_lines, self.log_lines, self.logged = Throttle(EPOCH_LINE_SECONDS), Throttle(FIRST_LOG_SECONDS), False

    def __enter__(self) -> TrainingDisplay:
        self.line.__enter__()
        self.line.describe("starting")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.line.__exit__(kind, error, trace)

    def show(self, event: ProgressEvent) -> None:
        """Show a progress event of the training."""
        match event:
            case EpochEnd():
                self._show_epoch(event.row, event.part)
            case StartupEvent():
                if event.phase == "workers" and "workers" in self.phase_ends:  # after a failure or an elastic resize
                    show_line(
                        f"workers restarted, {event.workers} now; training continues after the last finished epoch"
                    )
                self.phase_ends.setdefault(event.phase, seconds_since_start())
            case PhaseProgress():
                self.phase_ends.setdefault("first_step", seconds_since_start())
                self._show_progress(event)

    def _show_progress(self, event: PhaseProgress) -> None:
        epoch = "" if event.epoch is None else f"epoch {event.epoch}/{event.epochs}  "
        part = f"{event.part}  " if event.part else ""
        description = f"{part}{epoch}{PHASES[event.phase]}"
        text = progress_text(event.done, event.total, event.seconds)
        if event.phase == "heads":
            text = f"on {count_text(event.total, 'image')}"
        self.line.describe(description, text, event.done, event.total)
        if self.line.live:
            return
        if not self.logged:
            show_line(f"training starts after {startup_text(self.startup())}")
            self.logged = True
            self.log_lines.reset()
        elif self.log_lines.ready(always=event.phase == "heads" and not event.done):
            show_line(f"{description}: {text}")
            self.log_lines.seconds = min(2 * self.log_lines.seconds, LOG_SECONDS)

    def startup(self) -> dict[str, float]:
        """Seconds of each startup phase in order, and `total`: from the beginning of the command or call to the end of
        the first step, or of the first batch of features."""
        seconds, begin = {}, 0.0
        for phase in (*STARTUP_PHASES, "first_step"):
            if phase in self.phase_ends:
                seconds[phase], begin = self.phase_ends[phase] - begin, self.phase_ends[phase]
        return {**seconds, "total": begin}

    def _show_epoch(self, row: EpochRow, part: str | None) -> None:
        if not self.epoch_lines.ready(always=row.epoch >= self.epochs):
            return
        self.log_lines.reset()
        parts = [
            *([part] if part else []),
            "heads fitted" if row.heads else f"epoch {row.epoch:>3}/{self.epochs}",
            f"{'inner folds' if row.heads else 'train'} loss {row.train_loss:.4f} accuracy {row.train_accuracy:.4f}",
        ]
        if row.val:
            parts.append(f"val {epoch_text(row.val)}")
        waiting = f", {percent(row.wait_fraction, 0)} waiting for data" if row.wait_fraction >= 0.05 else ""
        left = (self.epochs - row.epoch) * (row.seconds - (row.features_seconds or 0.0))
        if row.epoch < self.epochs or not row.heads:
            parts.append(f"{row.images_per_s:,.0f} images/s{waiting}, {duration(left)} left")
        show_line(" | ".join(parts))


def startup_text(startup: dict[str, float]) -> str:
    """`10.2 s (images 1.0 s, Ray 5.1 s, workers 4.1 s), the first batch is done 3.0 s later`."""
    names = STARTUP_PHASES if "ray" in startup else STARTUP_PHASES | {"workers": "imports and model"}  # without Ray
    parts = [f"{text} {short_duration(startup[phase])}" for phase, text in names.items() if phase in startup]
    first = startup.get("first_step")
    later = "" if first is None else f", the first batch is done {short_duration(first)} later"
    return f"{short_duration(startup['total'] - (first or 0.0))} ({', '.join(parts)}){later}"


def _measurement(result: TrainingResult) -> str:
    """`validation, which selected the epoch: optimistic`; `out of fold, 4 folds: balanced accuracy 0.93 to 1.00`."""
    if result.folds:
        values, metric = [row.metrics[PRIMARY] for row in result.folds], METRICS.get(PRIMARY)
        return f"{result.measured}: {metric.title} {metric.text(min(values))} to {metric.text(max(values))}"
    return result.measured + (": optimistic" if result.selected else "")


def _spent(result: TrainingResult, time: TimeSpent) -> str:
    """`35.1 s features of the frozen base, 1.9 s fitting the heads`."""
    names = TIME_PARTS | ({"step": "fitting the heads"} if result.heads else {})
    always = ("step",) if result.heads else ("step", "wait")
    seconds = {part: getattr(time, part) for part in names}
    parts = [part for part in names if seconds[part] >= 0.5 or part in always]
    text = ", ".join(f"{short_duration(seconds[part])} {names[part]}" for part in parts)
    if time.read + time.augment < 0.05:
        return text
    input_tasks = f"{short_duration(time.read)} reading, {short_duration(time.augment)} augmenting"
    return f"{text}; in parallel, by input tasks: {input_tasks}"


def results_table(result: TrainingResult) -> Table:
    """The result of a training: metrics, best epoch, and what the time was spent on."""
    table = Table(title=Text(f"{result.recipe}, seed {result.seed}"), title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for split, evaluation in (("out of fold" if result.folds else "val", result.val), ("test", result.test)):
        for line in metric_lines(evaluation, headline=True) if evaluation else []:
            table.add_row(f"{split} {line.title}", line.text)
    for head in result.heads or ():
        settings = ", ".join(f"{name}={value:g}" for name, value in head.settings.items())
        origin = "chosen within the training images"
        table.add_row(f"head {head.kind}", f"{settings}, temperature {head.temperature:.2f} ({origin})")
    if result.val:
        table.add_row("measured on", _measurement(result))
    if result.temperature not in (None, 1.0):
        table.add_row("temperature", f"{result.temperature:.2f}; loss and calibration error are those after it")
    if not result.heads:
        table.add_row("best epoch" if result.selected else "epoch", f"{result.best_epoch} of {result.epochs}")
    table.add_row("images", ", ".join(f"{split} {rows:,}" for split, rows in result.rows.items() if rows))
    speed = f", {result.images_per_s:,.0f} images/s, {percent(result.wait_fraction)} waiting for data"
    if result.startup:
        table.add_row("before training", startup_text(result.startup))
    table.add_row("training time", f"{short_duration(result.seconds)}{'' if result.heads else speed}")
    if result.time:
        table.add_row("spent", _spent(result, result.time))
    table.add_row("workers", f"{result.workers}, {result.precision}")
    table.add_row("run folder", Text(result.run))
    return table
