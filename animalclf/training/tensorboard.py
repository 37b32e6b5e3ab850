"""TensorBoard event files of a run: `tensorboard --logdir runs/` shows every run below.

Each epoch has a small file in `events/` of the run folder. So files are written whole, also to a bucket, TensorBoard
follows the training, and an epoch that is repeated after a failure replaces its file.
"""

from __future__ import annotations

import os
import tempfile

from animalclf.rows import EpochRow
from animalclf.runs import Run
from animalclf.utils import storage

# Metric of an epoch's row -> tag, named as other tools name them.
TAGS = {
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "lr": "train/learning_rate",
    "images_per_s": "speed/images_per_s",
    "wait_fraction": "speed/wait_fraction",
    "seconds": "speed/epoch_seconds",
}


def scalars(row: EpochRow) -> dict[str, float]:
    """The scalars of an epoch by tag."""
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
