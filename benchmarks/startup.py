"""Start to first step: `animalclf train` against a bare TorchTrainer, and each part of the start on its own.

    python -m benchmarks.startup                        big CNN, batch 32, 320 images, one CPU worker, three rounds
    python -m benchmarks.startup --repeat 1 --json startup.json

All train the same model on the same images; seconds count from the start of the process. The bare TorchTrainer is the
shortest script that does it: ImageFolder, a DataLoader without processes, stock Ray without its dashboard. "alone" is
what a part takes without the others: PyTorch and the step in a process without Ray, Ray in a process without PyTorch,
and an actor that imports PyTorch in that Ray. Medians count, and ratios are those of one round.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from animalclf.raycompat.patches import OWN_RAY_VARIABLE
from animalclf.runs import Run
from benchmarks.common import animalclf, argument_parser, run, write_json
from benchmarks.images import write_demo

PARTS = ("imports", "Ray", "workers", "first batch", "first step")
BATCH, SIZE = 32, 128

STEP = """
def step(images, labels, classes):
    import os
    import torch
    from animalclf import config
    from animalclf.models import build
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = build(config.load("big_cnn", {}).model, classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
"""

BARE = """
import json, os, sys, time
import ray, ray.train, torch
from ray.train.torch import TorchTrainer
times = {"imports": time.time()}

def loop(settings):
    import time, torch
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2
    times = {"workers": time.time()}
    transform = v2.Compose([v2.Resize((SIZE, SIZE)), v2.PILToTensor()])
    dataset = ImageFolder(settings["photos"], transform)
    images, labels = next(iter(torch.utils.data.DataLoader(dataset, BATCH, shuffle=True)))
    times["first batch"] = time.time()
    step(images.permute(0, 2, 3, 1), labels, len(dataset.classes))
    times["first step"] = time.time()
    return times

ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="error")
times["Ray"] = time.time()
trainer = TorchTrainer(
    loop,
    train_loop_config={"photos": sys.argv[1]},
    scaling_config=ray.train.ScalingConfig(num_workers=1),
    run_config=ray.train.RunConfig(storage_path=sys.argv[2]),
)
print(json.dumps(times | trainer.fit().return_value))
"""

PLAIN = """
import json, os, sys, time
times = {}
import animalclf.training.train
from animalclf import config as configuration
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.data.prepared_set import open_prepared
from animalclf.data.sampler import sampling_plan
times["imports"] = time.time()
prepared = open_prepared(sys.argv[1])
config = configuration.load("big_cnn", {"train.batch_size": BATCH, "model.input_size": SIZE})
loader = MemoryLoader(sampling_plan(prepared, config), load_images(prepared))
batch = next(iter(loader.batches("train", 0)))
times["first batch"] = time.time()
import torch
step(torch.from_numpy(batch["image"]), torch.from_numpy(batch["label"]), len(prepared.classes))
times["first step"] = time.time()
print(json.dumps(times))
"""

RAY = """
import json, time
import ray
times = {"imports": time.time()}
ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="error")
times["Ray"] = time.time()

@ray.remote
class Worker:
    def ready(self):
        import ray.train.torch, torch
        return time.time()

print(json.dumps(times | {"workers": ray.get(Worker.remote().ready.remote())}))
"""


@dataclass(frozen=True)
class Results:
    animalclf: dict[str, float]
    """Seconds of each part, and `total`."""
    bare: dict[str, float]
    """Of the bare TorchTrainer."""
    alone: dict[str, float]
    ratio: float
    """Seconds to the first step of animalclf over those of the bare TorchTrainer, the median over rounds."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=int, default=320, help="images of the demo set (default: 320)")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    results = measure(arguments.images, arguments.repeat)
    show(results)
    write_json(arguments.json, results)


def measure(images: int, repeat: int) -> Results:
    product, bare, alone = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        photos, prepared = write_demo(f"{folder}/demo", images), f"{folder}/prepared"
        animalclf("prepare", "--recipe", "big_cnn", "--data", photos, "--out", prepared)
        for turn in range(repeat):
            product.append(of_animalclf(prepared, f"{folder}/run{turn}"))
            bare.append(seconds_of(BARE, f"{photos}/train_images", f"{folder}/bare{turn}"))
            plain, ray = seconds_of(PLAIN, prepared), seconds_of(RAY)
            alone.append({"imports": plain["imports"], "Ray": ray["Ray"], "workers": ray["workers"]})
            alone[-1] |= {part: plain[part] for part in ("first batch", "first step")}
            alone[-1]["total"] = plain["total"]
    ratios = [ours["total"] / theirs["total"] for ours, theirs in zip(product, bare, strict=True)]
    return Results(medians(product), medians(bare), medians(alone), statistics.median(ratios))


def of_animalclf(prepared: str, out: str) -> dict[str, float]:
    """Seconds of each part of `animalclf train` on one CPU worker, for an epoch."""
    sets = [f"train.batch_size={BATCH}", f"model.input_size={SIZE}", "train.epochs=1"]
    flags = [flag for text in sets for flag in ("--set", text)]
    placed = ["--data", prepared, "--out", out, "--cpu", "--workers", "1"]
    startup = json.loads(animalclf("train", "--recipe", "big_cnn", "--json", *placed, *flags))["startup"]
    waiting = Run(out).metrics()[0].wait_seconds
    seconds = (startup["images"], startup["ray"], startup["workers"], waiting, startup["first_step"] - waiting)
    return dict(zip(PARTS, seconds, strict=True)) | {"total": startup["total"]}


def seconds_of(script: str, *arguments: str) -> dict[str, float]:
    """Seconds of each part of another process, which prints the time at the end of each; and `total`."""
    text = f"BATCH, SIZE = {BATCH}, {SIZE}\n{STEP if 'step(' in script else ''}{script}"
    environment = {OWN_RAY_VARIABLE: "", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1"}
    started = time.time()
    ends = json.loads(run([sys.executable, "-c", text, *arguments], **environment).splitlines()[-1])
    seconds, begin = {}, started
    for part in PARTS:
        if part in ends:
            seconds[part], begin = ends[part] - begin, ends[part]
    return {**seconds, "total": begin - started}


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {part: statistics.median(each[part] for each in rounds) for part in rounds[0]}


def show(results: Results) -> None:
    title = f"start to first step, seconds: big CNN, batch {BATCH}, one CPU worker, {os.cpu_count()} CPUs"
    table = Table(title=title, title_justify="left")
    for heading in ("", "animalclf train", "bare TorchTrainer", "alone"):
        table.add_column(heading, justify="right" if heading else "left")
    for part in (*PARTS, "total"):
        row = (results.animalclf, results.bare, results.alone)
        name = {"imports": "Python, imports, images", "total": "first step after"}.get(part, part)
        table.add_row(name, *(f"{seconds[part]:.2f}" for seconds in row))
    table.caption = f"animalclf / bare TorchTrainer: {results.ratio:.2f}; alone: the process without Ray"
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
