"""Speed of the input: animalclf against torch DataLoader, Keras's generator, naive Ray Data, and a bare OpenCV loop.

    python -m benchmarks.input                                  4,000 images of 300 x 225, 128 px, full augmentation
    python -m benchmarks.input --keras-python ~/tf/bin/python   with Keras from another environment
    python -m benchmarks.input --images 20000 --json input.json

All read the same JPEG files and make the same kind of batches (128 images, the notebook's augmentation) on the
same cores, one after another, --repeat times; medians count, and ratios are those of one round. Ray runs and libraries
are imported when the clock starts, except in the processes that each starts itself. The bare loop is the limit: one
process per core, each doing nothing but OpenCV's warp of images in memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from animalclf import config as configuration
from animalclf.data.augment import Samples, compose, numpy_form
from animalclf.data.loader import load_images
from animalclf.data.prepared_set import Prepared
from animalclf.data.sampler import sampling_plan
from animalclf.raycompat.patches import OWN_RAY_VARIABLE
from animalclf.utils.process_variables import PROCESS_VARIABLES
from benchmarks.common import argument_parser, write_json
from benchmarks.images import write_noise
from benchmarks.peer_loaders import cpu_seconds

BATCH, SIZE = 128, 128
Rounds = dict[str, list[dict[str, float]]]  # contestant -> its measurements, one per round

KERAS = """
import os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from keras.src.legacy.preprocessing.image import ImageDataGenerator
folder, count = sys.argv[1], int(sys.argv[2])
ranges = dict(rotation_range=25, width_shift_range=0.2, height_shift_range=0.2, zoom_range=0.4)
generator = ImageDataGenerator(rescale=1 / 255, horizontal_flip=True, **ranges)
flow = generator.flow_from_directory(folder, target_size=(128, 128), batch_size=128)
started = time.time()
next(flow)
first, seen = time.time(), 128
while seen < count:
    seen += len(next(flow)[0])
print(first - started, (seen - 128) / (time.time() - first))
"""


@dataclass(frozen=True)
class Results:
    images: int
    cores: int
    prepare_s: float
    first_epoch_ratio_dataloader: float
    """DataLoader's first epoch over prepare and our first epoch together."""
    contestants: dict[str, dict[str, float]]
    """images_per_s, first_batch_s and more of each, medians over rounds."""
    ratios: dict[str, float]
    """Our images/s over those of each other contestant, medians over rounds."""
    later_first_batch_s: float
    """The longest wait for the first batch of a later epoch."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=16, help="later epochs of animalclf that are timed (default: 16)")
    parser.add_argument("--settle", type=int, default=6, help="untimed epochs before them (default: 6)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--keras-python", default=sys.executable, metavar="PYTHON", help="a Python that has keras and tensorflow"
    )
    parser.add_argument("--no-naive", action="store_true", help="leave out naive Ray Data, which is slow")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(arguments, folder)
    show(results)
    write_json(arguments.json, results)


def measure(arguments: argparse.Namespace, folder: str) -> Results:
    import ray.data

    from animalclf.cluster import start_local

    photos, cores = write_noise(f"{folder}/photos", arguments.images), arguments.cores
    start_local(cores)
    prepared, prepare_s = prepare_once(photos, f"{folder}/prepared")
    contestants: dict[str, Callable[[], dict[str, float]]] = {
        "animalclf": lambda: ours(prepared, arguments.settle, arguments.epochs),
        "torch DataLoader": lambda: dataloader(photos, cores),
        "bare OpenCV loop": lambda: bare_loop(prepared, cores),
    }
    if subprocess.run([arguments.keras_python, "-c", "import keras, tensorflow"], capture_output=True).returncode == 0:
        contestants["Keras's generator"] = lambda: keras(arguments.keras_python, photos, arguments.images)
    if not arguments.no_naive:
        naive = "import sys; from benchmarks.input import naive_ray; naive_ray(sys.argv[1], int(sys.argv[2]))"
        contestants["naive Ray Data"] = lambda: other_process([sys.executable, "-c", naive, photos, str(cores)])
    rounds: Rounds = {name: [] for name in contestants}
    for _ in range(arguments.repeat):
        for name, run in contestants.items():
            rounds[name].append(run())
    ray.shutdown()
    medians = {
        name: {key: statistics.median(measured[key] for measured in each) for key in each[0]}
        for name, each in rounds.items()
    }
    loader = medians["torch DataLoader"]
    loader_first_epoch = (arguments.images - BATCH) / loader["images_per_s"] + loader["first_batch_s"]
    return Results(
        images=arguments.images,
        cores=cores,
        prepare_s=prepare_s,
        first_epoch_ratio_dataloader=loader_first_epoch / (prepare_s + rounds["animalclf"][0]["first_epoch_s"]),
        contestants=medians,
        ratios={name: ratio(rounds, name) for name in rounds if name != "animalclf"},
        later_first_batch_s=max(measured["later_first_batch_s"] for measured in rounds["animalclf"]),
    )


def ratio(rounds: Rounds, name: str) -> float:
    """Our images/s over those of the contestant `name`, the median over rounds."""
    pairs = zip(rounds["animalclf"], rounds[name], strict=True)
    return statistics.median(ours["images_per_s"] / other["images_per_s"] for ours, other in pairs)


def prepare_once(photos: str, out: str) -> tuple[Prepared, float]:
    """The prepared set, and the seconds of `prepare`."""
    from animalclf.prepare.job import prepare

    config = configuration.load("big_cnn", {"data.val": 0}).data
    started = time.perf_counter()
    prepared = prepare(photos, out, config, progress=False)
    return prepared, time.perf_counter() - started


def read_batches(batches: Iterable[Any], size: Callable[[Any], int]) -> dict[str, float]:
    """Seconds to the first batch, and images/s after it."""
    started, first_at, images, first_images = time.perf_counter(), 0.0, 0, 0
    for batch in batches:
        images += size(batch)
        if not first_at:
            first_at, first_images = time.perf_counter(), images
    speed = (images - first_images) / (time.perf_counter() - first_at)
    return {"first_batch_s": first_at - started, "images_per_s": speed}


def ours(prepared: Prepared, settle: int, epochs: int) -> dict[str, float]:
    """All epochs of one run as the training loop receives them, as tensors; the shards are in the object store. The
    first `settle` epochs, which use the store's memory for the first time, are not timed."""
    import ray
    import torch

    from animalclf.data.ray_loader import RayLoader, cache_images
    from animalclf.training import loop

    loading = time.perf_counter()
    plan = sampling_plan(prepared, configuration.load("big_cnn", {"train.batch_size": BATCH}))
    store = cache_images(prepared)
    ray.wait(store.refs, num_returns=len(store.refs))
    started = time.perf_counter()
    loader = RayLoader(plan, store, 0, 1, [("train", epoch) for epoch in range(settle + epochs)])
    first_batches, timed_from, cpu_from, first_epoch = [], 0.0, 0.0, 0.0
    for epoch in range(settle + epochs):
        epoch_started = time.perf_counter()
        if epoch == settle:
            timed_from, cpu_from = epoch_started, cpu_seconds()
        rows = 0
        for batch in loader.batches("train", epoch):
            if not rows:
                first_batches.append(time.perf_counter() - (epoch_started if epoch else started))
            rows += len(loop.to_tensor(batch["image"], torch.device("cpu")))
        assert rows == len(plan.rows["train"])
        first_epoch = first_epoch if epoch else time.perf_counter() - loading
    images, seconds, cpu_s = (
        epochs * len(plan.rows["train"]),
        time.perf_counter() - timed_from,
        cpu_seconds() - cpu_from,
    )
    return {
        "first_batch_s": first_batches[0],
        "images_per_s": images / seconds,
        "images_per_cpu_s": images / cpu_s,
        "later_first_batch_s": max(first_batches[1:]),
        "first_epoch_s": first_epoch,
    }


def dataloader(photos: str, cores: int) -> dict[str, float]:
    import torch
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    transform = v2.Compose(
        [
            v2.Resize((SIZE, SIZE)),
            v2.RandomAffine(25, translate=(0.2, 0.2), scale=(0.6, 1.4), interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )
    loader = torch.utils.data.DataLoader(ImageFolder(photos, transform), BATCH, shuffle=True, num_workers=cores)
    return read_batches(loader, lambda batch: len(batch[1]))


def naive_ray(photos: str, cores: int) -> None:
    """As in Ray's tutorials: read_images, and torchvision in map_batches. Prints its two numbers."""
    import ray.data
    import torch
    from torchvision.transforms import v2

    transform = v2.Compose([v2.RandomAffine(25, translate=(0.2, 0.2), scale=(0.6, 1.4)), v2.RandomHorizontalFlip()])

    def augment(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        images = torch.from_numpy(np.array(batch["image"])).permute(0, 3, 1, 2)
        return {"image": np.stack([transform(image).permute(1, 2, 0).numpy() for image in images])}

    ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.read_images(photos, size=(SIZE, SIZE), mode="RGB").map_batches(augment, batch_size=BATCH)
    print(*read_batches(dataset.iter_batches(batch_size=BATCH), lambda batch: len(batch["image"])).values())


def keras(python: str, photos: str, images: int) -> dict[str, float]:
    """The reference notebook's generator. It has one thread, so a fifth of the images is enough."""
    return other_process([python, "-c", KERAS, photos, str(max(images // 5, 300))])


def other_process(command: list[str]) -> dict[str, float]:
    """The two numbers that another process prints, in an environment without our settings."""
    environment = {
        name: value for name, value in os.environ.items() if name not in {*PROCESS_VARIABLES, OWN_RAY_VARIABLE}
    }
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    if process.returncode:
        sys.exit(f"{command[2][:80]} failed:\n{process.stderr[-2000:]}")
    first, speed = process.stdout.splitlines()[-1].split()
    return {"first_batch_s": float(first), "images_per_s": float(speed)}


def bare_loop(prepared: Prepared, cores: int) -> dict[str, float]:
    """OpenCV's warp of images in memory, one process per core, with given parameters; nothing is shuffled or sent."""
    images = load_images(prepared)
    index = np.arange(len(prepared.manifest))
    views = images.views(index)
    affine = compose(Samples(configuration.Augment(), 0, 0, index, SIZE), prepared.stored_size).warp
    context = multiprocessing.get_context("fork")
    start, queue = context.Barrier(cores), context.Queue()

    def work(number: int) -> None:
        cv2.setNumThreads(1)
        own_rows = index[number::cores]
        out = np.empty((BATCH, SIZE, SIZE, 3), np.uint8)
        start.wait()
        started, cpu_from = time.perf_counter(), time.process_time()
        for first in range(0, len(own_rows), BATCH):
            part = own_rows[first : first + BATCH]
            numpy_form.warp([views[row] for row in part], affine[part], SIZE, out[: len(part)])
        queue.put((started, time.perf_counter(), len(own_rows), time.process_time() - cpu_from))

    processes = [context.Process(target=work, args=(number,)) for number in range(cores)]
    for process in processes:
        process.start()
    spans = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    seconds = max(ended for _, ended, *_ in spans) - min(started for started, *_ in spans)
    count, cpu_s = sum(count for *_, count, _ in spans), sum(cpu for *_, cpu in spans)
    return {"first_batch_s": 0.0, "images_per_s": count / seconds, "images_per_cpu_s": count / cpu_s}


def show(results: Results) -> None:
    files = f"{results.images:,} JPEG files of 300 x 225"
    title = f"{files} to augmented batches of {BATCH} at {SIZE} px, {results.cores} cores"
    table = Table(title=title, title_justify="left")
    for heading in ("", "images/s", "against DataLoader", "first batch, s"):
        table.add_column(heading, justify="right" if heading else "left")
    loader = results.contestants["torch DataLoader"]["images_per_s"]
    for name, contestant in results.contestants.items():
        speed, first = contestant["images_per_s"], contestant["first_batch_s"]
        table.add_row(name, f"{speed:,.0f}", f"{speed / loader:.2f}", f"{first:.2f}" if first else "")
    console = Console(width=110)
    console.print(table)
    console.print(
        f"in one round: {results.ratios['torch DataLoader']:.2f} x DataLoader, "
        f"{results.ratios['bare OpenCV loop']:.0%} of the bare loop; first batch of a later epoch after at most "
        f"{results.later_first_batch_s:.2f} s"
    )
    console.print(
        f"prepare took {results.prepare_s:.1f} s ({results.images / results.prepare_s:,.0f} images/s); prepare and the "
        f"first epoch together are {results.first_epoch_ratio_dataloader:.2f} x as fast as DataLoader's first epoch"
    )


if __name__ == "__main__":
    main()
