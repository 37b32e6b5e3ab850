"""The features of a frozen base in a training against a bare PyTorch loop over the same stored images, and ten heads.

    ANIMALCLF_SAMPLE_DATA=... python -m benchmarks.feature_speed --repeat 2

Trains `quick` on --data (default: ANIMALCLF_SAMPLE_DATA/species20). The training's seconds are those of its phase
"features": from the request of the first batch to the stored features. The loop has the same base, precision, batches
and threads, and its images in memory, in a new process: neither is warmed up. The heads are --heads logistic
regressions on the features of all images, each with the settings that the recipe searches.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from animalclf.data.loader import load_images
from animalclf.data.prepared_set import Prepared
from animalclf.data.run_images import prepared_set_of
from animalclf.features.fitting import fit_head
from animalclf.features.folds import deal_folds
from animalclf.features.heads import TrainingSet
from animalclf.runs import Run, open_run
from animalclf.training import checkpoint
from animalclf.training.distributed import set_up_cpu
from animalclf.training.fitted_heads import INNER_FOLDS
from animalclf.utils.canvas import sides_on_canvas
from benchmarks.common import animalclf, argument_parser, write_json


@dataclass(frozen=True)
class Round:
    images: int
    training: float
    """Images/s of the features in the training; next, of the loop."""
    loop: float
    heads: int
    heads_cpu_s: float

    @property
    def ratio(self) -> float:
        return self.training / self.loop


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", help="class folders (default: ANIMALCLF_SAMPLE_DATA/species20)")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--heads", type=int, default=10)
    arguments = parser.parse_args()
    sample = os.environ.get("ANIMALCLF_SAMPLE_DATA", "")
    if not (arguments.data or sample):
        sys.exit("name the images: --data FOLDER, or the environment variable ANIMALCLF_SAMPLE_DATA")
    data = arguments.data or f"{sample}/species20"
    rounds = []
    for _ in range(arguments.repeat):
        rounds.append(each := measure(data, arguments.heads))
        print(
            f"{each.images:,} images: {each.training:.1f} images/s in the training, {each.loop:.1f} in the loop, ratio "
            f"{each.ratio:.2f}; {each.heads} heads in {each.heads_cpu_s:.1f} CPU s",
            flush=True,
        )
    print(f"median ratio {statistics.median(each.ratio for each in rounds):.2f}")
    write_json(arguments.json, {"rounds": [vars(each) | {"ratio": each.ratio} for each in rounds]})


def measure(data: str, heads: int) -> Round:
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        result = json.loads(animalclf("train", "--data", data, "--out", run, "--json", RAY_ADDRESS="local"))
        prepared = prepared_set_of(open_run(run))
        rows = np.concatenate([prepared.rows("train"), prepared.rows("val")])
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            rows, values, seconds = pool.submit(loop, Run(run), prepared, rows).result()
    return Round(
        images=len(rows),
        training=len(rows) / result["time"]["features"],
        loop=len(rows) / seconds,
        heads=heads,
        heads_cpu_s=fit(values, prepared.labels[rows], heads),
    )


@torch.inference_mode()
def loop(run: Run, prepared: Prepared, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The manifest rows int64 (N,) in the order of the loop, their features float32 (N, F), and the seconds."""
    model, info = checkpoint.load_model(run.root)
    model.eval().to(memory_format=torch.channels_last)
    set_up_cpu(0, 1)
    images, size, batch = load_images(prepared), info.config.view_size, info.config.train.batch_size
    bf16 = run.result().precision == "bf16"
    manifest = prepared.manifest.iloc[rows]
    sides = map(sides_on_canvas, manifest["height"], manifest["width"], [size] * len(rows))
    rows = rows[np.lexsort(np.array(list(sides)).reshape(-1, 2).T)]  # images of one shape are in one batch

    def features(index: np.ndarray) -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model.features(torch.from_numpy(np.stack(images.views(index)))).float().numpy()

    started = time.perf_counter()
    parts = [features(rows[start : start + batch]) for start in range(0, len(rows), batch)]
    return rows, np.concatenate(parts), time.perf_counter() - started


def fit(values: np.ndarray, labels: np.ndarray, count: int) -> float:
    """CPU seconds of `count` heads on features float (N, F) of the class numbers int64 (N,)."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    training = TrainingSet(flat, labels, np.ones(len(labels)), int(labels.max()) + 1)
    started = time.process_time()
    with threadpool_limits(torch.get_num_threads()):
        for seed in range(count):
            fit_head("logistic", training, deal_folds(labels, np.arange(len(labels)), INNER_FOLDS, seed))
    return time.process_time() - started


if __name__ == "__main__":
    main()
