"""`animalclf demo`: everything that the package does, on pictures drawn by code, in minutes."""

from __future__ import annotations

import argparse
import time
from typing import Any

from animalclf import api
from animalclf.commands import compare
from animalclf.commands.common import add_command

ORDER = 100


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "demo",
        run,
        "Everything on pictures drawn by code: compare the big CNN, its balanced form and VGG16, join them, score a submission, write the report.",
        """  animalclf demo
  animalclf demo --pictures 20000 --data demo_data/             (only larger)
  animalclf demo --weights vgg16_features.pth                   (VGG16's weights from a file, where they cannot be downloaded)
  animalclf demo --only-data --defects --data demo_data/        (only the pictures, with planted defects)""",
    )
    parser.add_argument("--data", default="demo_data", help="where the pictures are drawn to (default: demo_data)")
    parser.add_argument("--out", help="comparison folder (default: runs/demo-<time>)")
    parser.add_argument("--pictures", type=int, default=600, help="training pictures (default: 600)")
    parser.add_argument("--test-pictures", type=int, default=100, help="unlabelled test pictures (default: 100)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of the CNNs (default: 4)")
    parser.add_argument(
        "--weights",
        default="imagenet",
        help="VGG16's weights: imagenet (downloaded once), or a file (default: imagenet)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--defects",
        action="store_true",
        help="plant known defects: truncated, wrong extension, copies, a wrong label, ...",
    )
    parser.add_argument("--only-data", action="store_true", help="draw the pictures and stop")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf.demo.dataset import write_demo
    from animalclf.inference.submission import score
    from animalclf.utils import storage
    from animalclf.utils.console import console

    images = {"images": arguments.pictures, "test_images": arguments.test_pictures}
    drawn = write_demo(arguments.data, **images, seed=arguments.seed, defects=arguments.defects)
    console.print(
        f"{drawn['images']:,} training and {drawn['test_images']:,} test pictures of {len(drawn['classes'])} animals in {drawn['root']}"
    )
    if arguments.only_data:
        return drawn
    result = api.compare(
        arguments.data,
        **comparison(arguments),
        out=arguments.out or f"runs/demo-{time.strftime('%Y%m%d-%H%M%S')}",
        predict=arguments.data,
        prior="uniform",  # the test set is balanced, as the competition's
        sample_submission=storage.join(arguments.data, "sample_submission.csv"),
    )
    found = compare.show(result)
    best = max(found["ensembles"], key=lambda one: one["balanced_accuracy"])
    scored = score(best["submission"], storage.join(arguments.data, "answers.csv"))
    console.print(
        f"submission of the {best['name']} scored against the answer key: accuracy {scored['accuracy']:.4f} (chance: {1 / len(drawn['classes']):.2f})"
    )
    return {**found, "submission": best["submission"], "test_accuracy": scored["accuracy"]}


def comparison(arguments: argparse.Namespace) -> dict[str, Any]:
    """The seed's three models at a size for 2 cores and minutes: recipe `demo` with and without class weights, and VGG16's pooled features."""
    vgg, weights = "vgg16_pooled", arguments.weights
    if not _available(weights):
        vgg, weights = "vgg16_pooled without ImageNet weights", "none"
    cnn = {"train.epochs": arguments.epochs}
    return {
        "set": {"data.stored_size": 84},
        "seeds": [arguments.seed],
        "recipes": [
            {"recipe": "demo", "name": "big_cnn", "set": {**cnn, "train.balance": "none"}},
            {"recipe": "demo", "name": "big_cnn_balanced", "set": {**cnn, "train.balance": "class_weights"}},
            {"recipe": "vgg16_pooled", "name": vgg, "set": {"model.input_size": 84, "model.weights": weights}},
        ],
    }


def _available(weights: str) -> bool:
    """False, with a line that says so, where VGG16's weights cannot be downloaded: the demo goes on without."""
    from rich.text import Text

    from animalclf.errors import UserError
    from animalclf.models.weights import check
    from animalclf.utils.console import console

    try:
        check("vgg16", weights)
    except UserError as error:
        if weights != "imagenet":
            raise
        warning = "VGG16 goes without its ImageNet weights, so it shows little of what it can do:"
        console.print(Text.assemble((warning, "yellow"), f" {error}"), soft_wrap=True)
        return False
    return True
