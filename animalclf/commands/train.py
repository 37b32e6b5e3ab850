"""`animalclf train`."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from typing import Any

from animalclf import config as configuration
from animalclf.commands.common import DATA_HELP, add_command, overrides_of, recipe_arguments
from animalclf.errors import UserError


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "train",
        run,
        "Train one recipe and evaluate its best epoch.",
        """  animalclf train --data photos/ --recipe big_cnn
  animalclf train --data photos/ --recipe vgg16_pooled --set model.weights=vgg16_features.pth --set data.val=0.25
  animalclf train --data s3://bucket/photos --out s3://bucket/runs/a --workers 4
  animalclf train --data photos/ --out runs/a --resume         (after Ctrl-C, a crash or a lost machine)
  animalclf train --data photos/ --out runs/a --resume --set train.epochs=200            (train a finished run further)
  animalclf train --data photos/ --local --limit 200 --set train.epochs=1      (in this process: breakpoints work)""",
    )
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--out", help="run folder or s3:// prefix (default: runs/<recipe>-<time>)")
    parser.add_argument("--prepared", help="where the prepared set is kept (default: beside the run folder, named by its fingerprint)")
    parser.add_argument(
        "--workers",
        default="0",
        metavar="N|MIN:MAX",
        help="training workers (default: one a GPU, or 1 on CPUs); 2:8 goes on with fewer when machines are lost and grows when they come",
    )
    parser.add_argument("--cpu", action="store_true", help="train on CPUs although there are GPUs")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out from its last finished epoch")
    parser.add_argument("--local", action="store_true", help="train in this process, without Ray Train")
    parser.add_argument("--profile", action="store_true", help="write profile/trace.json.gz of a few steps; ui.perfetto.dev shows it")
    recipe_arguments(parser, "big_cnn")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf.rows import Moment
    from animalclf.training import driver, mlflow_log
    from animalclf.training.display import TrainingDisplay, results_table
    from animalclf.training.resources import Workers
    from animalclf.utils import storage
    from animalclf.utils.console import console

    mlflow_log.wanted()
    workers = Workers.parse(arguments.workers)
    overrides = overrides_of(arguments) | ({"train.profile": True} if arguments.profile else {})
    config = driver.checked(configuration.load(arguments.recipe, overrides))
    if arguments.resume and not arguments.out:
        raise UserError("--resume needs --out: the run folder to continue")
    out = storage.absolute(arguments.out or f"runs/{config.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    where = arguments.prepared or storage.join(os.path.dirname(out), "prepared")
    prepared, config = driver.prepared_for(arguments.data, config, where, overrides, workers.maximum)
    folder = driver.claim(out, config, arguments.resume)
    try:
        with TrainingDisplay(config.train.epochs) as display:
            display.show(Moment("pictures ready"))
            result = driver.start(config, prepared, folder, workers, arguments.cpu, arguments.local, display.show)
    finally:
        folder.unlock()
    mlflow_log.log_run(folder)
    result = replace(result, startup=display.startup())
    console.print(results_table(result))
    return result.to_dict()
