"""What the moments, the progress and the epochs of a rehearsal say of any number of images: seconds of an image, and
seconds that no image costs. Plain arithmetic."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from animalclf.rows import EpochEnd, EpochRow, Measured, PhaseProgress, ProgressEvent, StartupEvent

MAX_IMAGES = 5_000  # of training/known_scores.py, which imports PyTorch


@dataclass
class Timeline:
    """The ends of a rehearsal's phases, in seconds since 1970, and its events with theirs."""

    started: float
    ends: dict[str, float] = field(default_factory=dict)
    events: list[tuple[ProgressEvent, float]] = field(default_factory=list)

    def end(self, phase: str) -> None:
        """A phase ends now."""
        self.ends[phase] = time.time()

    def spans(self) -> dict[str, float]:
        """Seconds of each phase: from the end of the one before."""
        names = sorted(self.ends, key=lambda name: self.ends[name])
        begins = [self.started, *(self.ends[name] for name in names)]
        return {name: self.ends[name] - begin for name, begin in zip(names, begins, strict=False)}

    def take(self, event: ProgressEvent) -> None:
        """An event of the training."""
        self.events.append((event, time.time()))
        if isinstance(event, StartupEvent) and event.phase == "ray":
            self.ends.setdefault("Ray", time.time())


@dataclass(frozen=True)
class SampleSize:
    """Images of a rehearsal, the steps of its epochs, and its workers."""

    train: int
    val: int
    steps: int
    workers: int


def of_epochs(rows: Sequence[EpochRow], size: SampleSize) -> Measured:
    """Medians over the epochs after the first, if there are some; the other fields are empty."""
    later = rows[1:] or rows

    def median(seconds: Callable[[EpochRow], float]) -> float:
        return statistics.median(map(seconds, later))

    return Measured(
        step_seconds=median(lambda row: row.step_seconds + row.copy_seconds) / size.steps,
        step_images=size.train / size.steps / size.workers,
        input_seconds=median(lambda row: row.read_seconds + row.augment_seconds) * size.workers / size.train,
        validate_seconds=median(lambda row: row.validate_seconds) * size.workers / max(1, size.val),
        epoch_seconds=median(_beside),
    )


def _beside(row: EpochRow) -> float:
    """Seconds of an epoch beside features, steps and validation: checks of the weights, and checkpoints."""
    return row.seconds - (row.features_seconds or 0.0) - row.train_seconds - row.validate_seconds


def feature_seconds(timeline: Timeline) -> float:
    """Seconds in which all workers together compute the features of an image: without the first batch, which warms up,
    if there are several. 0 without features."""
    passes = [event for event, _ in timeline.events if isinstance(event, PhaseProgress) and event.phase == "features"]
    if not passes:
        return 0.0
    first, last = passes[0], passes[-1]
    if last.done == first.done:
        return last.seconds / last.done
    return (last.seconds - first.seconds) / (last.done - first.done)


def feature_images(timeline: Timeline) -> int:
    """Images, or views of them, whose features the rehearsal has computed."""
    totals = [
        event.total for event, _ in timeline.events if isinstance(event, PhaseProgress) and event.phase == "features"
    ]
    return max(totals, default=0)


def fixed_seconds(
    timeline: Timeline, rows: Sequence[EpochRow], size: SampleSize, measured: Measured
) -> dict[str, float]:
    """Seconds of each phase that do not depend on the number of images: its seconds without those of its images."""
    spans, ends = timeline.spans(), timeline.ends
    first, image = rows[0], measured.feature_seconds / size.workers
    features = first.features_seconds or 0.0
    later = statistics.median([row.seconds for row in rows[1:]] or [first.seconds - features])
    epochs = [moment for event, moment in timeline.events if isinstance(event, EpochEnd)]
    scores = scored_images(size.train, size.val, size.val) * measured.validate_seconds / size.workers
    started = max(ends.get(phase, 0.0) for phase in ("start", "Ray", "prepare"))
    fixed = {name: spans[name] for name in ("start", "Ray", "end") if name in spans} | {
        "workers": epochs[0] - first.seconds - started,
        "features": features - feature_images(timeline) * image,
        "epochs": first.seconds - features - later,
        "evaluation": ends["trained"] - epochs[-1] - scores,
    }
    return {name: max(0.0, seconds) for name, seconds in fixed.items()}


def scored_images(train: int, val: int, scored: int) -> int:
    """Images that the model sees at the end of a training: `scored` ones, and those of which it fits and measures the
    distances of "none of these" (training/known_scores.py)."""
    return scored + min(train, MAX_IMAGES) + min(val, MAX_IMAGES)
