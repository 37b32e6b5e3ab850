"""`animalclf predict`."""

from __future__ import annotations

import argparse
import posixpath
from typing import TYPE_CHECKING

from animalclf import api
from animalclf.commands.common import (
    Answer,
    add_command,
    call,
    notify_arguments,
    prior_argument,
    sample_submission_argument,
    table_arguments,
    views_arguments,
)
from animalclf.errors import exit_code
from animalclf.utils.console import duration, show_line
from animalclf.utils.file_names import skipped_text
from animalclf.utils.text import count_text, percent

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 60
EXAMPLES = """\
  animalclf predict runs/a --data new_photos/ --out predictions/
  animalclf predict runs/a --data competition/ --prior uniform         (its test images; a balanced test set)
  animalclf predict runs/a --data new/ --sets 0.9 --format csv         (with the classes that each image may be)
  animalclf predict runs/a --data new/ --sample-submission sample_submission.csv"""
MAX_LISTED, MAX_CLASSES = 20, 20  # unreadable images, and classes, in the output


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "predict",
        run,
        summary="Classify unlabelled images: class probabilities of each image (Parquet) and submission.csv.",
        examples=EXAMPLES,
        api_function=api.predict,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--data",
        required=True,
        help="a folder of images of any depth, one image, or a Kaggle competition folder (its test images)",
    )
    parser.add_argument(
        "--out", help="where predictions.parquet and submission.csv go (default: RUN/predictions/<data>)"
    )
    prior_argument(parser)
    views_arguments(parser)
    parser.add_argument(
        "--sets",
        type=float,
        metavar="COVERAGE",
        help="add the column `set`, the classes that an image may be: for this fraction of images (such as 0.9) the "
        "true one is among them; selected on the validation images (default: 0, no sets)",
    )
    table_arguments(parser)
    sample_submission_argument(parser)
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images that a replica classifies at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="replicas of the model (default: one per GPU, or one per node)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images (default: 0, all)")
    notify_arguments(parser)


def run(arguments: argparse.Namespace) -> Answer:
    result = call(api.predict, arguments)
    for image in result.unreadable[:MAX_LISTED]:
        show_line(f"unreadable: {image.path}: {image.reason}; predicted as the most frequent class")
    done = f"{count_text(result.images, 'image')} in {duration(result.seconds)}"
    show_line(f"{done}: {result.predictions}, {result.submission}")
    counts = sorted(((name, count) for name, count in result.predicted.items() if count), key=lambda item: -item[1])
    more = f" and {len(counts) - MAX_CLASSES} more classes" if len(counts) > MAX_CLASSES else ""
    show_line(f"predicted: {', '.join(f'{name} {count:,}' for name, count in counts[:MAX_CLASSES])}{more}")
    if result.unknown is not None:
        unknown = count_text(result.unknown, "image")
        doubt = "; a few that show one may be among them" if result.unknown else ""
        show_line(f"none of the classes: {unknown} by the column `known`{doubt}")
    if sizes := result.set_sizes:
        show_line(
            f"sets: {sizes.mean:.2f} classes on average, {percent(sizes.one, 0)} of one class, "
            f"{percent(sizes.empty, 0)} empty; they have the true class for {100 * (result.coverage or 0):.4g} % "
            "of images like the validation images"
        )
    if result.transported is not None:
        show_line(
            f"optimal transport to the class priors changed the class of {count_text(result.transported, 'image')}"
        )
    if result.ignored:
        show_line(skipped_text(result.ignored))
    code, folder = exit_code(unreadable=bool(result.unreadable)), posixpath.dirname(result.predictions)
    return Answer(result.to_dict(), code, done, folder)
