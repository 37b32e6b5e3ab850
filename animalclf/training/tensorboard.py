"""TensorBoard event files of a run: `tensorboard --logdir runs/` shows every run below.

Each epoch has a small file in `events/` of the run folder. So files are written whole, also to a bucket, TensorBoard
follows the training, and an epoch that is repeated after a failure replaces its file.
"""

from __future__ import annotations

import struct
import time

from animalclf.rows import EpochRow
from animalclf.runs import Run
from animalclf.utils import storage
from animalclf.utils.interrupts import delayed_interrupt

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
    with delayed_interrupt():  # the first epoch has just ended, and a Ctrl-C may come now
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

    now = time.time()
    events = [Event(wall_time=now, file_version="brain.Event:2")]
    events += [Event(wall_time=now, step=row.epoch, summary=scalar(tag, value)) for tag, value in scalars(row).items()]
    content = b"".join(_record(event.SerializeToString()) for event in events)
    # TensorBoard reads the files of a folder in the order of their names.
    storage.write_bytes(run.url("events", f"events.out.tfevents.{row.epoch:010d}"), content)


def _record(data: bytes) -> bytes:
    """A record of an event file: length, checksum, data, checksum."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
