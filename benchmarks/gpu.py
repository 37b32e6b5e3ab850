"""Training on one GPU: images/s of animalclf against a plain PyTorch loop on the same card, and whole commands.

    python -m benchmarks.gpu                                   models, settings and commands, with drawn images
    python -m benchmarks.gpu --images FOLDER --weights FILE    commands on real images, with ImageNet weights
    python -m benchmarks.gpu --parts models,settings --json gpu.json

models: the training function on a set in device memory, with augmentation, as a Ray worker calls it. "plain" is the
loop of PyTorch's tutorials on the same network: the set in device memory, affine_grid and grid_sample, autocast, the
fused optimizer. "step" is that loop on one fixed batch, without data loading. settings: one setting changed at a time.
commands: `animalclf prepare`, `train` and `predict` from start to result on a set with the class sizes of Animals-10.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch._dynamo
import torch.nn.functional as F
import yaml
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data.device_loader import DeviceLoader
from animalclf.data.loader import StoredImages
from animalclf.data.prepared_set import FORMAT, DatasetInfo, Prepared
from animalclf.data.sampler import SamplingPlan, sampling_plan
from animalclf.models import build
from animalclf.runs import Run
from animalclf.training.context import TrainContext
from animalclf.training.distributed import RankContext
from animalclf.training.frozen_features import feature_loader
from animalclf.training.loop import autocast, choose_bf16
from animalclf.training.optim import make_optimizer
from animalclf.training.train import ignore, train
from benchmarks.common import argument_parser, write_json
from benchmarks.images import write_demo
from benchmarks.step import matrix_flops

# Images of each class; 26,179 in the public set.
ANIMALS10 = (4863, 2623, 1446, 2112, 3098, 1668, 1866, 1820, 4821, 1862)
DISTINCT = 512  # images in the set of the models part, which the others repeat
RESULT_KEYS = (
    "epochs",
    "accuracy",
    "balanced_accuracy",
    "images_per_s",
    "wait_fraction",
    "time",
    "startup",
    "precision",
)
console = Console(width=150)


@dataclass(frozen=True)
class Case:
    """A recipe with settings; `features`: only the frozen base's forward pass."""

    name: str
    recipe: str
    sets: tuple[str, ...] = ()
    features: bool = False


CASES = (
    Case("VGG16, last block", "vgg16"),
    Case("VGG16, last block, compiled", "vgg16", ("train.compile=true",)),
    Case("VGG16, frozen features", "vgg16_pooled", ("train.batch_size=128",), features=True),
    Case(
        "EfficientNet-Lite0, frozen features",
        "quick",
        (
            "model.name=efficientnet_lite0",
            "model.input_size=224",
            "data.stored_size=224",
            "data.resize=squash",
            "train.batch_size=256",
        ),
        features=True,
    ),
    Case("VGG16, all layers", "vgg16", ("model.trainable=[all]",)),
    Case("big CNN, 128 px", "big_cnn"),
    Case("big CNN, 128 px, compiled", "big_cnn", ("train.compile=true",)),
    Case("ResNet-50", "resnet18", ("model.name=resnet50", "train.batch_size=128")),
)
SETTINGS = (
    ("batch 64", ("train.batch_size=64",)),
    ("batch 256", ("train.batch_size=256",)),
    ("batch 512", ("train.batch_size=512",)),
    ("not channels_last", ("train.channels_last=false",)),
    ("fp32", ("train.precision=fp32",)),
    ("no CUDA graphs", ("train.cuda_graphs=false",)),
)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--parts", default="models,settings,commands", help="default: models,settings,commands")
    parser.add_argument("--settings", default="", help="only the settings whose name contains this")
    parser.add_argument("--cases", default="", help="only the models whose name contains this")
    parser.add_argument("--rows", type=int, default=8192, help="training images of the models part (default: 8192)")
    parser.add_argument(
        "--sets",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="settings of every case, for a test of this script",
    )
    parser.add_argument(
        "--repeat", type=int, default=2, help="rounds of animalclf and plain loop; the median counts (default: 2)"
    )
    parser.add_argument("--count", type=int, default=21_179, help="images of the commands part (default: 21179)")
    parser.add_argument(
        "--epochs", default="110,20", help="epochs of the big CNN and of VGG16 in the commands part (default: 110,20)"
    )
    parser.add_argument(
        "--images", default="", metavar="FOLDER", help="class folders of real images, for the set of the commands part"
    )
    parser.add_argument("--weights", default="none", metavar="FILE", help="ImageNet weights of VGG16's convolutions")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    results: dict[str, object] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
    }
    for part in arguments.parts.split(","):
        results |= {"models": models, "settings": settings, "commands": commands}[part](arguments, device)
        write_json(arguments.json, results)  # after each part, for runs that are interrupted


# --------------------------------------------------------------------------------------------- animalclf and plain loop


def models(arguments: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """Each case: animalclf, the plain loop and the bare step, --repeat times in turn."""
    peak = matrix_flops(device, torch.bfloat16)
    table = Table(title=f"images/s; a bf16 matrix product reaches {peak / 1e12:.0f} TFLOP/s", title_justify="left")
    headings = ["", "animalclf", "plain loop", "step alone", "animalclf / plain", "data loading"]
    for heading in (*headings, "fraction of matrix peak", "peak memory", "epoch 1"):
        table.add_column(heading)
    results = {}
    for case in CASES:
        if arguments.cases not in case.name:
            continue
        config = configured(case.recipe, "train.epochs=4", *case.sets, *arguments.sets)
        rounds = []
        for _ in range(arguments.repeat):
            measure = ours_features if case.features else ours
            measured = measure(config, arguments.rows, device)
            plain = plain_loop(config, arguments.rows, device, case.features)
            rounds.append({**measured, "plain": plain, "step": bare_step(config, device, case.features)})
        row = {name: statistics.median(measured[name] for measured in rounds) for name in rounds[0]}
        row["ratio"] = statistics.median(measured["images_per_s"] / measured["plain"] for measured in rounds)
        row["peak_fraction"] = row["images_per_s"] * flops(config, device, case.features) / peak
        results[case.name] = row
        speeds = [f"{row[name]:,.0f}" for name in ("images_per_s", "plain", "step")]
        fractions = [f"{row['ratio']:.1%}", f"{row['wait_fraction']:.1%}", f"{row['peak_fraction']:.0%}"]
        memory, first_epoch = f"{row['memory'] / 1e9:.1f} GB", f"{row['first_epoch_s']:.1f} s"
        table.add_row(case.name, *speeds, *fractions, memory, first_epoch)
        print(json.dumps({case.name: row}), flush=True)
    console.print(table)
    return {"matrix_flops_per_s": peak, "models": results}


def settings(arguments: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """Images/s of animalclf with one setting changed at a time."""
    results: dict[str, dict[str, float]] = {}
    title = "images/s of animalclf with one setting changed (seconds of the first epoch)"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    chosen = [("recipe", ()), *(setting for setting in SETTINGS if arguments.settings in setting[0])]
    for name, _ in chosen:
        table.add_column(name)
    for case in CASES:
        if arguments.cases not in case.name or case.features or case.name.endswith("compiled"):
            continue
        cells = []
        for name, sets in chosen:
            config = configured(case.recipe, "train.epochs=3", *case.sets, *arguments.sets, *sets)
            try:
                measured = ours(config, arguments.rows, device)
            except torch.cuda.OutOfMemoryError:
                cells.append("out of memory")
                continue
            results.setdefault(case.name, {})[name] = measured["images_per_s"]
            cells.append(f"{measured['images_per_s']:,.0f} ({measured['first_epoch_s']:.1f} s)")
        table.add_row(case.name, *cells)
        print(json.dumps({case.name: results[case.name]}), flush=True)
    console.print(table)
    return {"settings": results}


def configured(recipe: str, *sets: str) -> Config:
    """A recipe without pretrained weights, with `key=value` settings."""
    pairs = dict(text.split("=", 1) for text in ("model.weights=none", *sets))
    return configuration.load(recipe, {key: yaml.safe_load(value) for key, value in pairs.items()})


def memory_set(rows: int, size: int) -> tuple[Prepared, StoredImages]:
    """A prepared set without files: `rows` training images of `size` px and a fifth as many for validation."""
    generator = np.random.default_rng(0)
    distinct = generator.integers(0, 256, (min(DISTINCT, rows), size, size, 3), np.uint8)
    total = rows + rows // 5
    labels = generator.integers(0, 10, total)
    frame = {
        "path": [f"{number}.jpg" for number in range(total)],
        "label": [f"class{label}" for label in labels],
        "status": "ok",
    }
    manifest = pd.DataFrame({**frame, "split": np.where(np.arange(total) < rows, "train", "val")})
    info: DatasetInfo = {
        "format": FORMAT,
        "classes": [f"class{number}" for number in range(10)],
        "stored_size": size,
        "fingerprint": "memory",
        "shards": [],
    }
    return Prepared("memory", info, manifest), StoredImages(
        [distinct], np.zeros(total, np.int64), np.arange(total) % len(distinct)
    )


def ours(config: Config, rows: int, device: torch.device) -> dict[str, float]:
    """The training function for a few epochs; images/s of those after the first."""
    prepared, images = memory_set(rows, config.data.stored_size)
    torch._dynamo.reset()
    loaders: list[DeviceLoader] = []

    def make_loader(plan: SamplingPlan, passes: object) -> DeviceLoader:
        if not loaders or loaders[0].plan is not plan:
            loaders.clear()  # frees its memory
            loaders.append(DeviceLoader(plan, images, device))
        return loaders[0]

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(os.path.join(folder, "run"))
        train(config, prepared, run, make_loader, RankContext(device=device))
        first, *later = run.metrics()
    seconds = sum(row.train_seconds for row in later)
    return {
        "images_per_s": sum(row.train_rows for row in later) / seconds,
        "wait_fraction": sum(row.wait_seconds for row in later) / seconds,
        "validation_images_per_s": sum(row.val_rows or 0 for row in later) / sum(row.validate_seconds for row in later),
        "checkpoint_s": statistics.median(row.checkpoint_seconds for row in later),
        "first_epoch_s": first.seconds,
        "memory": _peak_memory(device),
    }


def ours_features(config: Config, rows: int, device: torch.device) -> dict[str, float]:
    """The second pass of the frozen base over the set, as at the start of a training on features."""
    prepared, images = memory_set(rows, config.data.stored_size)
    config = replace(config, train=replace(config.train, cache_features=False))
    model = _on_device(config, device)
    plan, times = sampling_plan(prepared, config), []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    loaders: list[DeviceLoader] = []

    def make_loader(plan: SamplingPlan, passes: object) -> DeviceLoader:
        if not loaders:
            loaders.append(DeviceLoader(plan, images, device))
        _synchronize(device)
        times.append(time.perf_counter())
        return loaders[0]

    context = TrainContext(config, prepared, plan, Run("unused"), RankContext(device=device), make_loader, ignore)
    for _ in range(2):
        feature_loader(context, model)
        _synchronize(device)
        times.append(time.perf_counter())
    total = sum(map(len, plan.rows.values()))
    return {
        "images_per_s": total / (times[3] - times[2]),
        "wait_fraction": 0.0,
        "first_epoch_s": times[1] - times[0],
        "memory": _peak_memory(device),
    }


def plain_loop(config: Config, rows: int, device: torch.device, features: bool) -> float:
    """Images/s of an ordinary loop over a set in device memory, with the recipe's warp by affine_grid and
    grid_sample."""
    stored, size, batch = config.data.stored_size, config.model.input_size, config.train.batch_size
    images = torch.randint(0, 256, (min(rows, DISTINCT), stored, stored, 3), dtype=torch.uint8, device=device)
    labels = torch.randint(0, 10, (len(images),), device=device)
    step = _stepper(config, device, features)

    def epoch() -> int:
        order = torch.randint(0, len(images), (rows,), device=device)
        for index in order.split(batch):
            pixels = images[index].permute(0, 3, 1, 2).float()
            if features:
                view = pixels if stored == size else F.interpolate(pixels, (size, size), mode="area")
            else:
                grid = F.affine_grid(
                    _random_affine(len(index), device), [len(index), 3, size, size], align_corners=False
                )
                view = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
            step(view.permute(0, 2, 3, 1), labels[index])
        return rows

    return _speed(epoch, device)


def bare_step(config: Config, device: torch.device, features: bool) -> float:
    """Images/s of steps on one batch, without any data."""
    size, batch = config.model.input_size, config.train.batch_size
    image = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8, device=device)
    label = torch.randint(0, 10, (batch,), device=device)
    step = _stepper(config, device, features)

    def steps() -> int:
        for _ in range(20 if device.type == "cuda" else 1):
            step(image, label)
        return batch * (20 if device.type == "cuda" else 1)

    return _speed(steps, device)


def _stepper(config: Config, device: torch.device, features: bool) -> Callable[[torch.Tensor, torch.Tensor], None]:
    model = _on_device(config, device)
    bf16 = choose_bf16(config.train.precision, device)
    if features:
        model.eval()

        def forward(image: torch.Tensor, label: torch.Tensor) -> None:
            with torch.no_grad(), autocast(device, bf16):
                model.features(image)

        return forward
    model.train()
    optimizer = make_optimizer(model.parameters(), config.optim)
    network: Any = torch.compile(model) if config.train.compile else model

    def step(image: torch.Tensor, label: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, bf16):
            logits = network(image)
        F.cross_entropy(logits, label).backward()
        optimizer.step()

    return step


def _on_device(config: Config, device: torch.device) -> Any:
    torch.manual_seed(0)
    torch._dynamo.reset()
    return build(config.model, 10, load_weights=False).to(device).to(memory_format=torch.channels_last)


def _random_affine(count: int, device: torch.device) -> torch.Tensor:
    angle, shift, zoom = (torch.rand(3, count, device=device) * 2 - 1) * torch.tensor(
        [[0.44], [0.4], [0.4]], device=device
    )
    cos, sin = angle.cos() * (1 + zoom), angle.sin() * (1 + zoom)
    return torch.stack([torch.stack([cos, -sin, shift], -1), torch.stack([sin, cos, shift], -1)], 1)


def _speed(work: Callable[[], int], device: torch.device) -> float:
    """Images/s of the second of two calls of `work`, which returns its number of images."""
    work()
    _synchronize(device)
    started = time.perf_counter()
    count = work()
    _synchronize(device)
    return count / (time.perf_counter() - started)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else 0


def flops(config: Config, device: torch.device, features: bool) -> float:
    """Floating-point operations per image of a training step, or of the base's forward pass."""
    model = build(config.model, 10, load_weights=False).to(device).train()
    image = torch.zeros(2, config.model.input_size, config.model.input_size, 3, dtype=torch.uint8, device=device)
    with FlopCounterMode(display=False) as counter:
        if features:
            model.features(image)
        else:
            model(image).sum().backward()
    return counter.get_total_flops() / len(image)


# ------------------------------------------------------------------------------------------------------- whole commands


def commands(arguments: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """`prepare` and `train` as a user runs them, with the seconds of each from start to result."""
    results: dict[str, dict[str, Any]] = {}
    big, vgg = arguments.epochs.split(",")
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        data = write_images(arguments.images, f"{folder}/images", arguments.count)
        print(f"wrote {arguments.count} images in {time.time() - started:.0f} s", flush=True)
        weights = ["--set", f"model.weights={arguments.weights}"]
        for name, recipe, sets in (
            ("vgg16", "vgg16", [*weights, "--set", f"train.epochs={vgg}"]),
            ("big_cnn", "big_cnn", ["--set", f"train.epochs={big}"]),
            ("vgg16_pooled", "vgg16_pooled", weights),
        ):
            extra = [part for text in arguments.sets for part in ("--set", text)]
            prepared = f"{folder}/prepared-{name}"
            # Crops of the same real image are near-duplicates.
            near = ["--set", "data.near_duplicates=false"] if arguments.images else []
            seconds, _ = command("prepare", "--data", data, "--out", prepared, "--recipe", recipe, *near, *extra)
            results[f"prepare {name}"] = {"seconds": seconds, "images_per_s": arguments.count / seconds}
            print(json.dumps(results[f"prepare {name}"]), flush=True)
            folders = ["--data", prepared, "--out", f"{folder}/run-{name}"]
            seconds, stdout = command("train", "--json", *folders, "--recipe", recipe, *sets, *extra)
            result = json.loads(stdout.splitlines()[-1])
            row = {key: result[key] for key in RESULT_KEYS if key in result}
            results[f"train {name}"] = {"seconds": seconds, **row}
            print(json.dumps({name: results[f"train {name}"]}), flush=True)
        _, stdout = command(
            "predict", f"{folder}/run-vgg16", "--json", "--data", data, "--out", f"{folder}/predictions"
        )
        results["predict vgg16"] = {key: json.loads(stdout)[key] for key in ("seconds", "images_per_s")}
    table = Table(title=f"commands on {arguments.count:,} images", title_justify="left")
    for column in ("", "seconds", "images/s", "data loading", "accuracy"):
        table.add_column(column)
    for name, row in results.items():
        times = f"{row['seconds']:.1f}", f"{row['images_per_s']:,.0f}"
        table.add_row(name, *times, f"{row.get('wait_fraction', 0):.1%}", f"{row.get('accuracy', 0):.3f}")
    console.print(table)
    return {"commands": results}


def command(*words: str) -> tuple[float, str]:
    """Seconds of `animalclf words` from its start to its end, and its standard output."""
    started = time.time()
    process = subprocess.run([sys.executable, "-m", "animalclf.cli", *words], stdout=subprocess.PIPE, text=True)
    if process.returncode:
        raise SystemExit(f"animalclf {' '.join(words)} ended with exit code {process.returncode}")
    return time.time() - started, process.stdout


def write_images(images: str, folder: str, count: int) -> str:
    """A folder of `count` images: random crops of real `images` (the first ten class folders) with the class sizes of
    Animals-10, or, without them, the demo set."""
    if not images:
        return write_demo(folder, count)
    with ProcessPoolExecutor() as pool:
        list(pool.map(_crop, _crops(images, folder, count), chunksize=64))
    return folder


def _crops(images: str, folder: str, count: int) -> Iterator[tuple[str, str, int]]:
    """(source file, target file, random seed) of each crop."""
    number = 0
    sizes = np.diff(np.round(np.cumsum([0, *ANIMALS10]) / sum(ANIMALS10) * count)).astype(int)
    for label, size in zip(sorted(os.listdir(images)), sizes, strict=False):
        files = sorted(os.listdir(f"{images}/{label}"))
        os.makedirs(f"{folder}/{label}", exist_ok=True)
        for position in range(size):
            number += 1
            yield f"{images}/{label}/{files[position % len(files)]}", f"{folder}/{label}/{position:05d}.jpg", number


def _crop(job: tuple[str, str, int]) -> None:
    import cv2

    cv2.setNumThreads(1)
    source, target, seed = job
    generator, image = np.random.default_rng(seed), cv2.imread(source)
    assert image is not None, source
    height, width = image.shape[:2]
    fraction = generator.uniform(0.7, 1)
    side_y, side_x = int(height * fraction), int(width * fraction)
    top, left = generator.integers(0, height - side_y + 1), generator.integers(0, width - side_x + 1)
    part = cv2.resize(image[top : top + side_y, left : left + side_x], (width, height))
    cv2.imwrite(target, part, [cv2.IMWRITE_JPEG_QUALITY, int(generator.integers(80, 96))])


if __name__ == "__main__":
    main()
