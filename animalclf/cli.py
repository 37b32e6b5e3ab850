"""The commands. Results for machines go to standard output (--json), everything for people to standard error."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from animalclf import cluster
from animalclf import config as configuration
from animalclf.config import Config
from animalclf.errors import UserError

UNREADABLE = 3  # exit code
DATA_HELP = (
    "class folders (root/<class>/*.jpg), an unpacked Kaggle competition folder, a CSV or Parquet table, or a prepared set; a local path or s3://"
)

PRIOR_HELP = (
    "class shares of these pictures, to correct for: train (no change), uniform, estimate (from the predictions), cane=0.2,gatto=0.8, or a file"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit code 0 only on full success, 2 for what the user can mend, 3 where the work is done but some pictures could not be
    read, 130 after Ctrl-C."""
    arguments = _parser().parse_args(argv)
    from animalclf.console import console

    try:
        answer = arguments.run(arguments)
    except UserError as error:
        console.print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("stopped by Ctrl-C; nothing half-written is left. Continue a training with the same command and --resume.")
        return 130
    finally:
        cluster.leave_ray()
    code = int(answer.pop("exit_code", 0))
    if arguments.json:
        print(json.dumps(answer, allow_nan=False, ensure_ascii=False), flush=True)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="animalclf",
        description="Labelled pictures to a trained, evaluated classifier, on one machine or a Ray cluster.",
        epilog="""examples:
  animalclf demo                                            everything on drawn demo pictures, in minutes
  animalclf prepare --data photos/ --out prepared/          check, de-duplicate and split your pictures
  animalclf train --data photos/ --recipe vgg16_pooled      train; prepares by itself when needed
  animalclf evaluate runs/vgg16_pooled-...                  accuracy with intervals, per class, confusion, calibration
  animalclf predict runs/vgg16_pooled-... --data new/       probabilities and submission.csv
on a cluster: ray job submit --working-dir . -- python -m ray_jobs.train --data s3://bucket/photos --out s3://bucket/runs/a""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(json=False)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _prepare_parser(commands)
    _train_parser(commands)
    _evaluate_parser(commands)
    _predict_parser(commands)
    _demo_parser(commands)
    return parser


def _command(commands: Any, name: str, run: Any, summary: str, examples: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary, epilog=f"examples:\n{examples}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line on standard output")
    return parser


def _recipe_arguments(parser: argparse.ArgumentParser, recipe: str) -> None:
    names = ", ".join(configuration.recipe_names())
    parser.add_argument("--recipe", default=recipe, help=f"one of {names}, or a .yaml file (default: {recipe})")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of the recipe, e.g. --set train.epochs=5; repeatable"
    )
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="use only N pictures, spread over the classes: a smoke run")


def _config(arguments: argparse.Namespace) -> Config:
    sets = list(arguments.set) + ([f"data.limit={arguments.limit}"] if arguments.limit else [])
    return configuration.load(arguments.recipe, sets)


# ---------------------------------------------------------------------------------------------------------------------------- prepare


def _prepare_parser(commands: Any) -> None:
    parser = _command(
        commands,
        "prepare",
        _prepare,
        "Read every picture once: verify, measure, find copies, split, and store them decoded and resized.",
        """  animalclf prepare --data photos/ --out prepared/
  animalclf prepare --data labels.csv --out s3://bucket/prepared --set data.label_column=species
  animalclf prepare --data photos/ --out prepared/ --recipe vgg16        (stored large enough for VGG16's 224 px)
  animalclf prepare --data photos/ --out prepared/ --set data.folds=5 --set data.fold=0""",
    )
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--out", required=True, help="folder or s3:// prefix for the prepared set")
    parser.add_argument("--force", action="store_true", help="replace a prepared set of other pictures or settings")
    _recipe_arguments(parser, "big_cnn")


def _prepare(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf.console import console
    from animalclf.data.inspect import prepare, summary

    prepared = prepare(arguments.data, arguments.out, _config(arguments).data, force=arguments.force)
    console.print(summary(prepared))
    return {**prepared.info, "root": prepared.root, "exit_code": UNREADABLE if prepared.info["bad"] else 0}


# ------------------------------------------------------------------------------------------------------------------------------ train


def _train_parser(commands: Any) -> None:
    parser = _command(
        commands,
        "train",
        _train,
        "Train one recipe and evaluate its best epoch.",
        """  animalclf train --data photos/ --recipe big_cnn
  animalclf train --data photos/ --recipe vgg16_pooled --set model.weights=vgg16_features.pth --set data.val=0.25
  animalclf train --data s3://bucket/photos --out s3://bucket/runs/a --workers 4
  animalclf train --data photos/ --out runs/a --resume         (after Ctrl-C, a crash or a lost machine)
  animalclf train --data photos/ --local --limit 200 --set train.epochs=1      (in this process: breakpoints work)""",
    )
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--out", help="run folder or s3:// prefix (default: runs/<recipe>-<time>)")
    parser.add_argument("--prepared", help="where the prepared set is kept (default: beside the run folder, named by its fingerprint)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="training workers (default: one a GPU, or 1 on CPUs)")
    parser.add_argument("--cpu", action="store_true", help="train on CPUs although there are GPUs")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out from its last finished epoch")
    parser.add_argument("--local", action="store_true", help="train in this process, without Ray Train")
    _recipe_arguments(parser, "big_cnn")


def _train(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf import storage
    from animalclf.console import TrainingDisplay, console, results_table
    from animalclf.training import launch

    config = launch.with_weights(_config(arguments))
    if arguments.resume and not arguments.out:
        raise UserError("--resume needs --out: the run folder to continue")
    out = storage.absolute(arguments.out or f"runs/{config.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    prepared, config = launch.prepared_for(
        arguments.data, config, arguments.prepared or storage.join(os.path.dirname(out), "prepared"), arguments.set
    )
    run = launch.claim(out, config, arguments.resume)
    try:
        with TrainingDisplay(config.train.epochs) as display:
            result = launch.start(config, prepared, run, arguments.workers, arguments.cpu, arguments.local, display.show)
    finally:
        run.unlock()
    console.print(results_table(result, display.first_step))
    return result


# ----------------------------------------------------------------------------------------------------------------- evaluate and predict


def _evaluate_parser(commands: Any) -> None:
    parser = _command(
        commands,
        "evaluate",
        _evaluate,
        "Evaluate a run's best model on a labelled set: accuracy, balanced accuracy, macro F1, per class, confusion, calibration, intervals.",
        """  animalclf evaluate runs/a                                 (the validation split of its own prepared set)
  animalclf evaluate runs/a --data other_photos/            (any labelled folder or table)
  animalclf evaluate runs/a --prior uniform                 (corrected for a set where all classes are equally frequent)""",
    )
    parser.add_argument("run_folder", metavar="RUN", help="a run folder")
    parser.add_argument("--data", help="labelled pictures; default: the run's own prepared set")
    parser.add_argument("--split", default="val", choices=["train", "val", "test"], help="which split of the prepared set (default: val)")
    parser.add_argument("--prior", default="train", help=PRIOR_HELP)


def _evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf.console import console
    from animalclf.inference.evaluate import evaluate, table

    found = evaluate(arguments.run_folder, data=arguments.data, split=arguments.split, prior=arguments.prior)
    for renderable in table(found):
        console.print(renderable)
    return found


def _predict_parser(commands: Any) -> None:
    parser = _command(
        commands,
        "predict",
        _predict,
        "Classify unlabelled pictures: class probabilities a picture (Parquet) and submission.csv.",
        """  animalclf predict runs/a --data new_photos/ --out predictions/
  animalclf predict runs/a --data competition/ --prior uniform         (its test pictures; a balanced test set)
  animalclf predict runs/a --data new/ --sample-submission sample_submission.csv""",
    )
    parser.add_argument("run_folder", metavar="RUN", help="a run folder")
    parser.add_argument("--data", required=True, help="a folder of pictures of any depth, or a Kaggle competition folder (its test pictures)")
    parser.add_argument("--out", help="where predictions.parquet and submission.csv go (default: RUN/predictions/<data>)")
    parser.add_argument("--prior", default="train", help=PRIOR_HELP)
    parser.add_argument("--sample-submission", help="check the submission's ids and classes against this CSV")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="copies of the model (default: one a GPU, or 1 on CPUs)")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N pictures")


def _predict(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf import storage
    from animalclf.console import console
    from animalclf.inference.predict import predict

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
    for picture in found["unreadable"][:20]:
        console.print(f"[yellow]unreadable:[/] {_escape(picture['path'])}: {_escape(picture['reason'])}; predicted as the most frequent class")
    console.print(f"{found['pictures']:,} pictures, {found['pictures_per_s']:,.0f} pictures/s: {found['predictions']}, {found['submission']}")
    if found["ignored"]:
        console.print(f"left alone, being no pictures by their names: {len(found['ignored'])} files, such as {_escape(found['ignored'][0])}")
    return {**found, "exit_code": UNREADABLE if found["unreadable"] else 0}


# ------------------------------------------------------------------------------------------------------------------------------- demo


def _demo_parser(commands: Any) -> None:
    parser = _command(
        commands,
        "demo",
        _demo,
        "Everything on pictures drawn by code: prepare, train the big CNN, predict a test set, score the submission.",
        """  animalclf demo
  animalclf demo --pictures 20000 --data demo_data/             (only larger)
  animalclf demo --only-data --defects --data demo_data/        (only the pictures, with planted defects)""",
    )
    parser.add_argument("--data", default="demo_data", help="where the pictures are drawn to (default: demo_data)")
    parser.add_argument("--out", help="run folder (default: runs/demo-<time>)")
    parser.add_argument("--pictures", type=int, default=600, help="training pictures (default: 600)")
    parser.add_argument("--test-pictures", type=int, default=100, help="unlabelled test pictures (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--defects", action="store_true", help="plant known defects: truncated, wrong extension, copies, a wrong label, ...")
    parser.add_argument("--only-data", action="store_true", help="draw the pictures and stop")


def _demo(arguments: argparse.Namespace) -> dict[str, Any]:
    from animalclf import storage
    from animalclf.console import console
    from animalclf.data.demo import write_demo
    from animalclf.inference.submission import score

    drawn = write_demo(
        arguments.data, pictures=arguments.pictures, test_pictures=arguments.test_pictures, seed=arguments.seed, defects=arguments.defects
    )
    console.print(
        f"{drawn['pictures']:,} training and {drawn['test_pictures']:,} test pictures of {len(drawn['classes'])} animals in {drawn['root']}"
    )
    if arguments.only_data:
        return drawn
    out = storage.absolute(arguments.out or f"runs/demo-{time.strftime('%Y%m%d-%H%M%S')}")
    training = ["train", "--data", arguments.data, "--out", out, "--recipe", "demo", "--set", f"seed={arguments.seed}"]
    result = _train(_parser().parse_args(training))
    predicting = ["predict", out, "--data", arguments.data, "--prior", "uniform", "--sample-submission", f"{arguments.data}/sample_submission.csv"]
    predicted = _predict(_parser().parse_args(predicting))
    scored = score(predicted["submission"], storage.join(arguments.data, "answers.csv"))
    console.print(f"submission scored against the answer key: accuracy {scored['accuracy']:.4f} (chance: {1 / len(drawn['classes']):.2f})")
    console.print(f"the run: {out}")
    return {**result, "submission": predicted["submission"], "test_accuracy": scored["accuracy"], "exit_code": predicted["exit_code"]}


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    sys.exit(main())
