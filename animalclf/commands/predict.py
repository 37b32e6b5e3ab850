"""`animalclf predict`."""

from __future__ import annotations

import argparse
from typing import Any

from animalclf import api
from animalclf.commands.common import UNREADABLE, add_command, call, escape, prior_argument

ORDER = 60


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "predict",
        run,
        "Classify unlabelled pictures: class probabilities a picture (Parquet) and submission.csv.",
        """  animalclf predict runs/a --data new_photos/ --out predictions/
  animalclf predict runs/a --data competition/ --prior uniform         (its test pictures; a balanced test set)
  animalclf predict runs/a --data new/ --sample-submission sample_submission.csv""",
        api.predict,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--data",
        required=True,
        help="a folder of pictures of any depth, or a Kaggle competition folder (its test pictures)",
    )
    parser.add_argument(
        "--out", help="where predictions.parquet and submission.csv go (default: RUN/predictions/<data>)"
    )
    prior_argument(parser)
    parser.add_argument("--sample-submission", help="check the submission's ids and classes against this CSV")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument(
        "--workers", type=int, metavar="N", help="copies of the model (default: one a GPU, or 1 on CPUs)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf.utils.console import console

    result = call(api.predict, arguments)
    for image in result.unreadable[:20]:
        console.print(
            f"[yellow]unreadable:[/] {escape(image.path)}: {escape(image.reason)}; predicted as the most frequent class"
        )
    console.print(
        f"{result.images:,} images, {result.images_per_s:,.0f} images/s: {result.predictions}, {result.submission}"
    )
    if result.ignored:
        console.print(
            f"skipped, because their names are not those of images: {len(result.ignored)} files, such as {escape(result.ignored[0])}"
        )
    return {**result.to_dict(), "exit_code": UNREADABLE if result.unreadable else 0}
