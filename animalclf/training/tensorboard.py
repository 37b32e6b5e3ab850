"""TensorBoard event files of a run: `tensorboard --logdir runs/` shows every run that lies below.

One small file an epoch, in `events/` of the run folder: files are written whole, here and in a bucket, TensorBoard follows while training goes on,
and an epoch that is repeated after a fault replaces its own file.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

from animalclf.runs import Run
from animalclf.utils import storage

# Names as other tools write them.
TAGS = {
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "val_loss": "val/loss",
    "val_accuracy": "val/accuracy",
    "val_balanced_accuracy": "val/balanced_accuracy",
    "val_macro_f1": "val/macro_f1",
    "lr": "train/learning_rate",
    "pictures_per_s": "speed/pictures_per_s",
    "wait_share": "speed/wait_share",
    "seconds": "speed/epoch_seconds",
}


def write_events(run: Run, history: list[dict[str, Any]]) -> None:
    """Write the event file of the last epoch in `history` (rows as in metrics.jsonl). The step is the epoch, from 1."""
    from tensorboardX import SummaryWriter

    row = history[-1]
    with tempfile.TemporaryDirectory() as folder:
        writer = SummaryWriter(folder)
        for key, tag in TAGS.items():
            if key in row:
                writer.add_scalar(tag, row[key], row["epoch"])
        writer.close()
        (name,) = os.listdir(folder)
        with open(os.path.join(folder, name), "rb") as file:
            content = file.read()
    # TensorBoard reads the files of a folder in the order of their names.
    storage.write_bytes(run.url("events", f"events.out.tfevents.{row['epoch']:010d}"), content)
