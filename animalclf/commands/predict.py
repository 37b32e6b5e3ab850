"""`animalclf predict`."""

from __future__ import annotations

import argparse
from typing import Any

from animalclf import api
from animalclf.commands.common import UNREADABLE, add_command, call, prior_argument

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
    from rich.text import Text

    from animalclf.utils.console import console

    result = call(api.predict, arguments)
    for image in result.unreadable[:20]:
        text = f" {image.path}: {image.reason}; predicted as the most frequent class"
        console.print(Text.assemble(("unreadable:", "yellow"), text), soft_wrap=True)
    console.print(
        f"{result.images:,} images, {result.images_per_s:,.0f} images/s: {result.predictions}, {result.submission}",
        soft_wrap=True,
    )
    if result.ignored:
        console.print(
            f"skipped {len(result.ignored):,} files that are not images by their names, such as {result.ignored[0]}",
            soft_wrap=True,
        )
    return {**result.to_dict(), "exit_code": UNREADABLE if result.unreadable else 0}
