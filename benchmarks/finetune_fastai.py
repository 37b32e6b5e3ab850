"""fastai's `fine_tune` with the weights and image size of a recipe, on the folds that benchmarks/accuracy.py wrote.

    python -m benchmarks.finetune_fastai runs/accuracy/folds-photos-0.csv --images photos --recipe quick --out tuned

Every image gets class probabilities from a model that was tuned without its fold, for the `--probabilities` of
benchmarks/accuracy.py. fastai's defaults: its head and learning rates, one epoch for the head alone, flips, rotations,
zooms, crops and lighting; images are cropped to a square. Needs fastai; a GPU saves hours. A finished fold is stored
and not trained again.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

try:
    from fastai.vision import all as fastai
except ModuleNotFoundError as error:
    sys.exit(f"{error}: this benchmark needs fastai; pip install fastai")

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.models import build
from benchmarks.common import argument_parser

BATCH_SIZE = 32
BORDER = 1.125  # images are loaded larger by this factor, for rotations and crops


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("folds", nargs="+", help="tables of path, label and fold")
    parser.add_argument("--images", nargs="+", required=True, help="for each table the folder that its paths start at")
    parser.add_argument("--recipe", default="quick", help="a recipe with a frozen base")
    parser.add_argument("--weights", help="model.weights instead of the recipe's")
    parser.add_argument("--epochs", type=int, default=10, help="after the epoch of the head alone")
    parser.add_argument("--processes", type=int, default=1, help="folds at a time")
    parser.add_argument("--out", required=True, help="folder of the tables of probabilities")
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    config = configuration.load(arguments.recipe, {"model.weights": arguments.weights} if arguments.weights else {})
    spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(arguments.processes, mp_context=spawn) as pool:
        tables = []
        for file, images in zip(map(Path, arguments.folds), arguments.images, strict=True):
            table = pd.read_csv(file)
            files = table.assign(file=[os.path.join(images, path) for path in table["path"]])
            name = file.stem.removeprefix("folds-")
            method = f"{name}-fastai, weights of {arguments.recipe}, {arguments.epochs} epochs"
            stem = os.path.join(arguments.out, method)
            parts = [
                pool.submit(stored, f"{stem}.fold{fold}", files, fold, config, arguments.epochs)
                for fold in sorted(set(table["fold"].tolist()))
            ]
            tables.append((stem, table, parts))
        for stem, table, parts in tables:
            probabilities = pd.concat([part.result() for part in parts])
            joined = table.join(probabilities)
            joined.to_csv(f"{stem}.csv", index=False)
            accuracy = (joined[probabilities.columns].idxmax(axis=1) == joined["label"]).mean()
            print(f"{os.path.basename(stem)}: accuracy {accuracy:.4f}", flush=True)


def stored(file: str, files: pd.DataFrame, fold: int, config: Config, epochs: int) -> pd.DataFrame:
    """`tuned_probabilities`, from `file` if they are there, else written there."""
    if not os.path.exists(file):
        tuned_probabilities(files, fold, config, epochs).to_csv(f"{file}.tmp")
        os.replace(f"{file}.tmp", file)
    return pd.read_csv(file, index_col=0)


def tuned_probabilities(files: pd.DataFrame, fold: int, config: Config, epochs: int) -> pd.DataFrame:
    """The class probabilities of the images of `fold`, with the index of their rows in `files`, by a network that is
    tuned on the other images."""
    torch.set_num_threads(1)
    held_out = np.flatnonzero(files["fold"] == fold)
    fastai.set_seed(fold)
    learner = tuned(files, held_out, config, epochs)
    with learner.no_bar():
        probabilities = learner.get_preds(ds_idx=1)[0].numpy()
    return pd.DataFrame(probabilities, files.index[held_out], sorted(set(files["label"])))


def tuned(files: pd.DataFrame, held_out: np.ndarray, config: Config, epochs: int) -> Any:
    """A fastai learner whose network is tuned on the images that are not `held_out`."""
    classes, size = sorted(set(files["label"])), config.model.input_size
    model = build(config.model, len(classes))
    stats = fastai.Normalize.from_stats(model.mean.flatten() / 255, 1 / (255 * model.scale.flatten()))
    loaders = fastai.DataBlock(
        blocks=(fastai.TransformBlock(opened, fastai.IntToFloatTensor), fastai.CategoryBlock(classes)),
        get_x=fastai.ColReader("file"),
        get_y=fastai.ColReader("label"),
        splitter=fastai.IndexSplitter(held_out),
        item_tfms=fastai.Resize(int(size * BORDER)),
        batch_tfms=[*fastai.aug_transforms(size=size, min_scale=0.75), stats],
    ).dataloaders(files, bs=BATCH_SIZE, num_workers=0)
    base = nn.Sequential(*[layer for name, layer in model.base.named_children() if name != "pooling"])
    base.requires_grad_(True)  # the recipe froze it
    channels = fastai.num_features_model(base)
    network = fastai.add_head(base, channels, len(classes))
    learner = fastai.Learner(loaders, network, splitter=fastai.default_split)
    learner = learner.to_fp16() if torch.cuda.is_available() else learner.to_channelslast(use_amp=False)
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(epochs)
    return learner


decoded = functools.cache(fastai.PILImage.create)


def opened(file):  # type: ignore[no-untyped-def]  # fastai would convert what it returns to an annotated type
    """An image, decoded once for all epochs."""
    return decoded(file)


if __name__ == "__main__":
    main()
