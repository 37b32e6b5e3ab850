"""TensorBoard event files of a run: `tensorboard --logdir runs/` shows every run that lies below.

One small file an epoch, in `events/` of the run folder: files are written whole, here and in a bucket, TensorBoard
follows while training goes on, and an epoch that is repeated after a fault replaces its own file.
"""

from __future__ import annotations

import os
import tempfile

from animalclf.rows import EpochRow
from animalclf.runs import Run
from animalclf.utils import storage

# Names as other tools write them.
TAGS = {
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "lr": "train/learning_rate",
    "images_per_s": "speed/images_per_s",
    "wait_fraction": "speed/wait_fraction",
    "seconds": "speed/epoch_seconds",
}


def scalars(row: EpochRow) -> dict[str, float]:
    """Tag -> value of an epoch's row."""
    values = row.to_dict()
    return {tag: values[key] for key, tag in TAGS.items()} | {f"val/{name}": value for name, value in row.val.items()}


def write_events(run: Run, row: EpochRow) -> None:
    """Write the event file of an epoch. The step is the epoch, from 1."""
    from tensorboardX import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        writer = SummaryWriter(folder)
        for tag, value in scalars(row).items():
            writer.add_scalar(tag, value, row.epoch)
        writer.close()
        (name,) = os.listdir(folder)
        with open(os.path.join(folder, name), "rb") as file:
            content = file.read()
    # TensorBoard reads the files of a folder in the order of their names.
    storage.write_bytes(run.url("events", f"events.out.tfevents.{row.epoch:010d}"), content)
