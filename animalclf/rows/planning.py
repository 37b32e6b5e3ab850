"""What `train --dry-run` and `compare --dry-run` answer: what a training or a comparison will take."""

from __future__ import annotations

from dataclasses import dataclass, field

from animalclf.rows.base import OMIT_NONE, Row


@dataclass(frozen=True)
class Measured(Row):
    """A rehearsal: the command on a sample of the images, in a process of its own. Seconds are of one worker."""

    device: str = "cpu"
    precision: str = "fp32"
    parameters: int = 0
    """With BatchNorm's statistics; of a fitted head at the size that it will have."""
    trainable: int = 0
    """Of them, those that the optimizer changes, or the numbers of fitted heads."""
    fixed: dict[str, float] = field(default_factory=dict)
    """Seconds of each phase, whatever the number of images."""
    worker_bytes: int = 0
    """Peak memory of a worker."""
    best_bytes: int = 0
    """Of best.pt, and last.pt in `last_bytes`."""
    last_bytes: int = 0
    step_seconds: float = 0.0
    """One optimizer step of a worker, without its input."""
    step_images: float = 1.0
    """Images of that step."""
    input_seconds: float = 0.0
    """To read and augment one image, in one input task."""
    validate_seconds: float = 0.0
    """To validate one image: with cached features by the head alone."""
    epoch_seconds: float = 0.0
    """Of an epoch, beside its steps and its validation: checks of the weights, and writing the checkpoints."""
    feature_seconds: float = 0.0
    """To compute the features of one image; 0 without a frozen base."""
    features: int = 0
    """Numbers in the features of an image; 0 without a frozen base."""
    map_bytes: int = 0
    """Of the cached maps of one view (train.cached_views); 0 without."""
    fit_seconds: float = 0.0
    """To fit the heads on all training images."""
    gpu_bytes: int | None = field(default=None, metadata=OMIT_NONE)
    """Peak memory on the GPU, without the images."""
    gpu_total: int | None = field(default=None, metadata=OMIT_NONE)


@dataclass(frozen=True)
class TrainingPlan(Row):
    """A training before it starts. Bytes are of all workers together unless stated; seconds are of the whole command.
    `exact`: the images are prepared, so counts and sizes are exact; else they are estimates from the listing."""

    recipe: str
    run: str
    data: str
    prepared: str
    """The prepared set, existing or to be written."""
    is_prepared: bool
    rows: dict[str, int]
    """Images of each split."""
    class_counts: dict[str, int]
    """Images of each class, in all splits."""
    epochs: int
    """Of each training: with folds there are several."""
    trainings: int
    """1, or folds + 1."""
    steps: int
    """Optimizer steps of an epoch; 0 for fitted heads."""
    workers: int
    machine: str
    """`2 nodes, 16 CPUs, 2 GPUs`."""
    measured: Measured = field(metadata={"row": Measured})
    seconds: dict[str, float] = field(default_factory=dict)
    """By phase, in their order."""
    total_seconds: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes: `worker` (one), `total` (all processes of all nodes), `object_store` (of the images), and `gpu` (one)."""
    room: dict[str, int] = field(default_factory=dict)
    """What there is, of the keys of `memory`."""
    read: dict[str, int] = field(default_factory=dict)
    """Bytes read, by what is read."""
    written: dict[str, int] = field(default_factory=dict)
    """Bytes that stay, by what is written."""
    rewritten: int = 0
    """Bytes of the checkpoints of all epochs, at most; each replaces the one before."""
    devices: int = 1
    """GPUs, or nodes without them, that the workers use."""
    device_hours: float = 0.0
    price_per_hour: float | None = field(default=None, metadata=OMIT_NONE)
    """Of one device."""
    price: float | None = field(default=None, metadata=OMIT_NONE)
    problems: list[str] = field(default_factory=list)
    """What does not fit, and the key to change."""

    @property
    def imbalance(self) -> float:
        """Images of the largest class over those of the smallest."""
        return max(self.class_counts.values()) / max(1, min(self.class_counts.values()))


@dataclass(frozen=True)
class TrialPlan(Row):
    """The trials of a comparison that cost the same."""

    name: str
    """Of the first of them."""
    trials: int
    """That are still to be trained."""
    seconds: float
    """One of them, to its last epoch, without what all trials share."""
    plan: TrainingPlan = field(metadata={"row": TrainingPlan})


@dataclass(frozen=True)
class ComparisonPlan(Row):
    """A comparison before it starts."""

    comparison: str
    data: str
    trials: int
    concurrent: int
    """Trials at a time."""
    schedule: str
    costs: list[TrialPlan] = field(default_factory=list, metadata={"row": TrialPlan})
    shared_seconds: float = 0.0
    """Start, preparation, and end."""
    total_seconds: float = 0.0
    """Expected: with ASHA most trials are stopped."""
    most_seconds: float = 0.0
    """If every trial trains to its last epoch."""
    devices: int = 1
    device_hours: float = 0.0
    price_per_hour: float | None = field(default=None, metadata=OMIT_NONE)
    price: float | None = field(default=None, metadata=OMIT_NONE)
    problems: list[str] = field(default_factory=list)
