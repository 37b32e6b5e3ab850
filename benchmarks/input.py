"""How fast pictures reach the training: animalclf against torch DataLoader, Keras's generator, naive Ray Data, and a bare OpenCV loop.

    python -m benchmarks.input                                  4,000 pictures of 300 x 225, 128 px, the seed's full augmentation, 2 cores
    python -m benchmarks.input --keras-python ~/tf/bin/python   with Keras from another environment
    python -m benchmarks.input --pictures 20000 --json input.json

All read the same JPEG files and make the same kind of batches (128 pictures) on the same cores, one after another, --repeat times; medians count,
and ratios are those of one round. Ray is up and all is imported when the clock starts, but in the processes that each starts itself. The bare loop
is the limit: a process a core, each doing nothing but OpenCV's warp of pictures in memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
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
from animalclf.raycompat.patches import OWN
from animalclf.utils.malloc import ONE_ARENA
from benchmarks.pictures import draw

BATCH, SIZE = 128, 128

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=16, help="later epochs of animalclf that are timed (default: 16)")
    parser.add_argument("--settle", type=int, default=6, help="epochs before them that are not (default: 6)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--keras-python", default=sys.executable, metavar="PYTHON", help="a Python that has keras and tensorflow"
    )
    parser.add_argument("--no-naive", action="store_true", help="leave out naive Ray Data, which is slow")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments, folder)
    show(figures)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=1)


def measure(arguments: argparse.Namespace, folder: str) -> dict[str, Any]:
    import ray.data

    from animalclf.cluster import start_local

    photos, cores = draw(f"{folder}/photos", arguments.pictures), arguments.cores
    start_local(cores)
    prepared, preparing = prepare_once(photos, f"{folder}/prepared")
    contestants: dict[str, Callable[[], dict[str, float]]] = {
        "animalclf": lambda: ours(prepared, arguments.settle, arguments.epochs),
        "torch DataLoader": lambda: dataloader(photos, cores),
        "bare OpenCV loop": lambda: bare_loop(prepared, cores),
    }
    if subprocess.run([arguments.keras_python, "-c", "import keras, tensorflow"], capture_output=True).returncode == 0:
        contestants["Keras's generator"] = lambda: keras(arguments.keras_python, photos, arguments.pictures)
    if not arguments.no_naive:
        naive = "import sys; from benchmarks.input import naive_ray; naive_ray(sys.argv[1], int(sys.argv[2]))"
        contestants["naive Ray Data"] = lambda: apart([sys.executable, "-c", naive, photos, str(cores)])
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for _ in range(arguments.repeat):
        for name, run in contestants.items():
            rounds[name].append(run())
    ray.shutdown()
    loader = statistics.median(each["images_per_s"] for each in rounds["torch DataLoader"])
    loader_start = statistics.median(each["first_batch_s"] for each in rounds["torch DataLoader"])
    our_first = preparing["seconds"] + rounds["animalclf"][0]["first_epoch_s"]
    return {
        "pictures": arguments.pictures,
        "cores": cores,
        "prepare_s": preparing["seconds"],
        "prepare_images_per_s": arguments.pictures / preparing["seconds"],
        "first_epoch_ratio_dataloader": ((arguments.pictures - BATCH) / loader + loader_start) / our_first,
        "ratio_dataloader": ratio(rounds, "torch DataLoader"),
        "ratio_bare_loop": ratio(rounds, "bare OpenCV loop"),
        "ratio_keras": ratio(rounds, "Keras's generator") if "Keras's generator" in rounds else None,
        "first_batch_s": statistics.median(each["first_batch_s"] for each in rounds["animalclf"]),
        "later_first_batch_s": max(each["later_first_batch_s"] for each in rounds["animalclf"]),
        "contestants": {
            name: {key: statistics.median(one[key] for one in each) for key in each[0]} for name, each in rounds.items()
        },
    }


def ratio(rounds: dict[str, list[dict[str, float]]], other: str) -> float:
    """Our pictures/s over the other's, the median over rounds."""
    return statistics.median(
        a["images_per_s"] / b["images_per_s"] for a, b in zip(rounds["animalclf"], rounds[other], strict=True)
    )


def prepare_once(photos: str, out: str) -> tuple[Prepared, dict[str, float]]:
    from animalclf.prepare.job import prepare

    started = time.perf_counter()
    prepared = prepare(photos, out, configuration.load("big_cnn", {"data.val": 0}).data, progress=False)
    return prepared, {"seconds": time.perf_counter() - started}


def consumed(batches: Iterable[Any], size: Callable[[Any], int]) -> dict[str, float]:
    """Seconds to the first batch, and pictures/s after it."""
    started, first, seen, first_size = time.perf_counter(), 0.0, 0, 0
    for batch in batches:
        seen += size(batch)
        if not first:
            first, first_size = time.perf_counter(), seen
    return {"first_batch_s": first - started, "images_per_s": (seen - first_size) / (time.perf_counter() - first)}


def ours(prepared: Prepared, settle: int, epochs: int) -> dict[str, float]:
    """All epochs of one run as its worker's training loop receives them, as tensors; the shards are in the object store. `settle` epochs go before,
    in which the store's memory is used for the first time."""
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
    first_batches, settled, first_epoch = [], 0.0, 0.0
    for epoch in range(settle + epochs):
        asked = time.perf_counter()
        settled = asked if epoch == settle else settled
        rows = 0
        for batch in loader.batches("train", epoch):
            if not rows:
                first_batches.append(time.perf_counter() - (asked if epoch else started))
            rows += len(loop.to_tensor(batch["image"], torch.device("cpu")))
        assert rows == len(plan.rows["train"])
        first_epoch = first_epoch if epoch else time.perf_counter() - loading
    speed = epochs * len(plan.rows["train"]) / (time.perf_counter() - settled)
    return {
        "first_batch_s": first_batches[0],
        "images_per_s": speed,
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
    return consumed(loader, lambda batch: len(batch[1]))


def naive_ray(photos: str, cores: int) -> None:
    """What Ray's tutorials show: read_images and torchvision in map_batches. Prints its two figures."""
    import ray.data
    import torch
    from torchvision.transforms import v2

    transform = v2.Compose([v2.RandomAffine(25, translate=(0.2, 0.2), scale=(0.6, 1.4)), v2.RandomHorizontalFlip()])

    def change(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        images = torch.from_numpy(np.array(batch["image"])).permute(0, 3, 1, 2)
        return {"image": np.stack([transform(image).permute(1, 2, 0).numpy() for image in images])}

    ray.init(address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.read_images(photos, size=(SIZE, SIZE), mode="RGB").map_batches(change, batch_size=BATCH)
    print(*consumed(dataset.iter_batches(batch_size=BATCH), lambda batch: len(batch["image"])).values())


def keras(python: str, photos: str, pictures: int) -> dict[str, float]:
    """The seed's generator; it has one thread, so a fifth of the pictures is enough."""
    return apart([python, "-c", KERAS, photos, str(max(pictures // 5, 300))])


def apart(command: list[str]) -> dict[str, float]:
    """The two figures that another process prints, in an environment without our settings."""
    environment = {name: value for name, value in os.environ.items() if name not in {*ONE_ARENA, OWN}}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{command[2][:80]} failed:\n{done.stderr[-2000:]}")
    first, speed = done.stdout.splitlines()[-1].split()
    return {"first_batch_s": float(first), "images_per_s": float(speed)}


def bare_loop(prepared: Prepared, cores: int) -> dict[str, float]:
    """OpenCV's warp of pictures in memory, a process a core, parameters known beforehand; nothing is shuffled, sent or collected."""
    pictures = load_images(prepared)
    index = np.arange(len(prepared.manifest))
    views = pictures.views(index)
    affine = compose(Samples(configuration.Augment(), 0, 0, index, SIZE), prepared.stored_size).warp
    context = multiprocessing.get_context("fork")
    start, queue = context.Barrier(cores), context.Queue()

    def work(number: int) -> None:
        cv2.setNumThreads(1)
        mine = index[number::cores]
        out = np.empty((BATCH, SIZE, SIZE, 3), np.uint8)
        start.wait()
        started = time.perf_counter()
        for first in range(0, len(mine), BATCH):
            part = mine[first : first + BATCH]
            numpy_form.warp([views[row] for row in part], affine[part], SIZE, out[: len(part)])
        queue.put((started, time.perf_counter(), len(mine)))

    processes = [context.Process(target=work, args=(number,)) for number in range(cores)]
    for process in processes:
        process.start()
    spans = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return {
        "first_batch_s": 0.0,
        "images_per_s": sum(count for *_, count in spans)
        / (max(end for _, end, _ in spans) - min(begin for begin, *_ in spans)),
    }


def show(figures: dict[str, Any]) -> None:
    title = f"{figures['pictures']:,} JPEG files of 300 x 225 to augmented batches of {BATCH} at {SIZE} px, {figures['cores']} cores"
    table = Table(title=title, title_justify="left")
    for name in ("", "pictures/s", "against DataLoader", "first batch, s"):
        table.add_column(name, justify="left" if not name else "right")
    loader = figures["contestants"]["torch DataLoader"]["images_per_s"]
    for name, each in figures["contestants"].items():
        first = f"{each['first_batch_s']:.2f}" if each["first_batch_s"] else ""
        table.add_row(name, f"{each['images_per_s']:,.0f}", f"{each['images_per_s'] / loader:.2f}", first)
    console = Console(width=110)
    console.print(table)
    console.print(
        f"in one round: {figures['ratio_dataloader']:.2f} x DataLoader, {figures['ratio_bare_loop']:.0%} of the bare loop; first batch of a later "
        f"epoch after at most {figures['later_first_batch_s']:.2f} s"
    )
    console.print(
        f"preparing took {figures['prepare_s']:.1f} s ({figures['prepare_images_per_s']:,.0f} pictures/s); preparing and the first epoch together "
        f"are {figures['first_epoch_ratio_dataloader']:.2f} x as fast as DataLoader's first epoch"
    )


if __name__ == "__main__":
    main()
