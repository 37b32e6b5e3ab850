"""`animalclf predict`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from animalclf.commands.common import UNREADABLE, add_command, escape, prior_argument


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "predict",
        run,
        "Classify unlabelled pictures: class probabilities a picture (Parquet) and submission.csv.",
        """  animalclf predict runs/a --data new_photos/ --out predictions/
  animalclf predict runs/a --data competition/ --prior uniform         (its test pictures; a balanced test set)
  animalclf predict runs/a --data new/ --sample-submission sample_submission.csv""",
    )
    parser.add_argument("run_folder", metavar="RUN", help="a run folder")
    parser.add_argument("--data", required=True, help="a folder of pictures of any depth, or a Kaggle competition folder (its test pictures)")
    parser.add_argument("--out", help="where predictions.parquet and submission.csv go (default: RUN/predictions/<data>)")
    prior_argument(parser)
    parser.add_argument("--sample-submission", help="check the submission's ids and classes against this CSV")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="copies of the model (default: one a GPU, or 1 on CPUs)")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N pictures")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf.inference.predict import predict
    from animalclf.utils import storage
    from animalclf.utils.console import console

    name = os.path.basename(storage.absolute(arguments.data))
    out = arguments.out or storage.join(storage.absolute(arguments.run_folder), "predictions", name)
    found = predict(
        arguments.run_folder,
        arguments.data,
        out,
        prior=arguments.prior,
        batch_size=arguments.batch_size,
        workers=arguments.workers,
        sample_submission=arguments.sample_submission,
        limit=arguments.limit,
    )
    for image in found.unreadable[:20]:
        console.print(f"[yellow]unreadable:[/] {escape(image.path)}: {escape(image.reason)}; predicted as the most frequent class")
    console.print(f"{found.images:,} images, {found.images_per_s:,.0f} images/s: {found.predictions}, {found.submission}")
    if found.ignored:
        console.print(f"skipped, because their names are not those of images: {len(found.ignored)} files, such as {escape(found.ignored[0])}")
    return {**found.to_dict(), "exit_code": UNREADABLE if found.unreadable else 0}
