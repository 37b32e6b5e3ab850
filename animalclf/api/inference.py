"""What is done with a trained model: evaluate, predict, ensemble, report, export, explain, load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from animalclf.api.calls import PathLike, output_folder, path_text, public
from animalclf.errors import UserError

if TYPE_CHECKING:
    import torch

    from animalclf.inference.model import Model
    from animalclf.rows import (
        EnsemblesResult,
        EvaluationResult,
        ExplainResult,
        ExportResult,
        PredictionResult,
        ReportResult,
        VoteResult,
    )


@public
def evaluate(
    run: PathLike,
    *,
    data: PathLike | None = None,
    split: str = "val",
    prior: str = "train",
    views: str = "none",
    transport: bool = False,
    top_k: int = 1,
    format: str = "parquet",
    out: PathLike | None = None,
) -> EvaluationResult:
    """Evaluate the best model of the run folder `run`: metrics with 95 % intervals, per class, confusion, calibration.

    `data`: labelled images or a prepared set (default: the run's own prepared set). `split`: which split of a prepared
    set. `prior`: class priors of these images to correct for: "train" (no change), "uniform", "estimate" (from the
    predictions), "dog=0.2,cat=0.8", or a file. `views`: what the probabilities are averaged over: "none", "flip" (the
    image and its mirror image) or "multi" (these two and their middles, enlarged). `transport`: for images whose class
    counts are known exactly, such as a balanced test set, with these as `prior`: assign the classes by optimal
    transport, so that their counts fit; the notes have its effect. `top_k`: columns for this many most probable
    classes. `format`: of the table of probabilities: "parquet", "csv" or "jsonl". `out`: where the result and the
    probabilities go (default: RUN/predictions), for a run folder that cannot be written.
    """
    from animalclf.inference import evaluate as evaluation
    from animalclf.inference.extra_columns import TableOptions

    return evaluation.evaluate(
        str(run),
        data=path_text(data),
        split=split,
        prior=prior,
        views=views,
        transport=transport,
        columns=TableOptions(top_k=top_k, format=format),
        out=path_text(out),
    )


@public
def predict(
    run: PathLike,
    data: PathLike,
    *,
    out: PathLike | None = None,
    prior: str = "train",
    views: str = "none",
    transport: bool = False,
    top_k: int = 1,
    sets: float = 0.0,
    format: str = "parquet",
    sample_submission: PathLike | None = None,
    batch_size: int = 64,
    workers: int = 0,
    limit: int = 0,
) -> PredictionResult:
    """Classify the unlabelled images of a folder with Ray Data: write predictions.parquet and submission.csv.

    The column `known` says whether an image shows one of the classes at all: yes if its `known_score` is 0 or more,
    as for 95 % of the validation images.

    `data`: a folder of images of any depth, one image, or a Kaggle competition folder (its test images). The id of an
    image is its file name, or its path if several folders have the same name. `out`: the folder of the files (default:
    RUN/predictions/<data>). `prior`, `views`, `transport`, `top_k`: see `evaluate`. `sets`: a coverage such as 0.9 adds
    the column `set`, the classes that an image may be: for this fraction of images the true one is among them.
    `format`: of the table: "parquet", "csv" or "jsonl". `sample_submission`: check ids and classes against this CSV.
    `workers`: replicas of the model (0: one for each GPU, or one for each node). `limit`: only the first `limit`
    images. For a few images at hand `load(run).predict(images)` is simpler.
    """
    from animalclf.inference import predict as prediction
    from animalclf.inference.extra_columns import TableOptions
    from animalclf.utils import storage

    name = os.path.basename(storage.absolute(str(data)))
    target = out or storage.join(storage.absolute(str(run)), "predictions", name)
    return prediction.predict(
        str(run),
        str(data),
        str(target),
        prior=prior,
        views=views,
        transport=transport,
        columns=TableOptions(top_k=top_k, sets=sets, format=format),
        sample_submission=path_text(sample_submission),
        limit=limit,
        batch_size=batch_size,
        workers=workers,
    )


@public
def ensemble(
    members: PathLike | Sequence[PathLike],
    *,
    out: PathLike | None = None,
    method: str | Sequence[str] | None = None,
    data: PathLike | None = None,
    views: str = "none",
    prior: str = "train",
    sample_submission: PathLike | None = None,
    workers: int = 0,
    limit: int = 0,
) -> EnsemblesResult | VoteResult:
    """Combine several runs, validated on the same images, by each `method` ("vote", "mean", "weighted"; default: all).

    `members` may also be submission .csv files: then the result is their majority vote. `out`: where the ensembles go
    (default: runs/ensemble-<time>). `data`: unlabelled images to predict. `views`, `prior`, `sample_submission`,
    `workers`, `limit`: as for `predict`.
    """
    from animalclf.inference import mixing
    from animalclf.inference.ensemble import ensemble as combine
    from animalclf.inference.vote import vote_submissions
    from animalclf.report.leaderboard import leaderboard, positions_of_recipes
    from animalclf.report.leaderboard_render import write
    from animalclf.rows import EnsemblesResult
    from animalclf.runs import open_run

    folder, names = output_folder(out, "ensemble"), list(map(str, members))  # type: ignore[arg-type]
    if all(name.endswith(".csv") for name in names):
        used = {
            "--data": data,
            "--views": views != "none",
            "--prior": prior != "train",
            "--sample-submission": sample_submission,
        }
        if given := [name for name, is_given in used.items() if is_given]:
            raise UserError(f"a vote of submission files has no use for {', '.join(given)}; name runs, or leave it out")
        return vote_submissions(names, folder)
    runs = [open_run(name) for name in names]
    positions_of_recipes(runs, [run.config() for run in runs])  # refuses a repeated run before the images are predicted
    ensembles = combine(
        runs,
        folder,
        methods=method or mixing.METHODS,
        data=path_text(data),
        views=views,
        prior=prior,
        sample_submission=path_text(sample_submission),
        workers=workers,
        limit=limit,
    )
    board = leaderboard(runs, ensembles)
    write(board, folder)
    return EnsemblesResult(ensembles=ensembles, leaderboard=board)


@public
def report(
    folders: PathLike | Sequence[PathLike], *, out: PathLike | None = None, reference: bool = False
) -> ReportResult:
    """Write report.html (one page that opens offline) and its plots: for a run, several runs, or a comparison.

    `out`: where they go (default: into the run or comparison folder; required for several runs). `reference`: show the
    reference results that come with a recipe, even if the data has other images than the reference.
    """
    from animalclf.tuning.conclusion import report_folders

    return report_folders(list(map(str, folders)), path_text(out), reference=reference)  # type: ignore[arg-type]


@public
def export(
    run: PathLike, *, to: str | Sequence[str] = ("onnx",), out: PathLike | None = None, check: int = 0
) -> ExportResult:
    """Write the best model of the finished run folder `run` for use without animalclf.

    `to`: "onnx" (pixels uint8 of any size to calibrated probabilities), "onnx-int8" (the same with weights of 8 bits)
    and "safetensors" (the weights), one or several. `out`: the folder (default: RUN/export). `check`: compare the ONNX
    files with `predict` first, on this many files of many sizes and modes made of validation images.
    """
    from animalclf.export.export import export as write

    return write(str(run), list(to), path_text(out), check)


@public
def explain(
    run: PathLike,
    images: PathLike | Sequence[PathLike],
    *,
    out: PathLike | None = None,
    class_name: str | None = None,
    views: str = "none",
    limit: int = 0,
) -> ExplainResult:
    """Show why: write a heat map of what speaks for the class of each image as PNG files, index.csv and explain.html.

    `images`: paths or URLs of images or folders. `out`: the folder (default: RUN/explain). `class_name`: the class to
    explain (default: the predicted one of each image). `views`: see `evaluate`; the maps are averaged, too. `limit`:
    only the first `limit` images. For arrays: `load(run).explain(images)`.
    """
    from animalclf.explain.explain import explain as write

    return write(
        str(run),
        list(map(str, images)),  # type: ignore[arg-type]
        path_text(out),
        class_name=class_name,
        views=views,
        limit=limit,
    )


@public
def load(run: PathLike, *, device: str | torch.device = "auto") -> Model:
    """The best model of the run folder `run` in this process, without Ray, on `device`: "auto", "cpu", "cuda",
    "cuda:1", or a torch.device. An array or a PIL image of a large JPEG photograph has slightly other probabilities
    than its path (see Model)."""
    from animalclf.inference.model import Model

    return Model(run, str(device))
