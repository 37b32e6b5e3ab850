"""Training pictures/s of one step, data left out: precision x memory layout x eager/compiled, and Keras on TensorFlow where it is installed.

    python -m benchmarks.step                                     big CNN at batch 32, and Keras if this Python has TensorFlow
    python -m benchmarks.step --keras-python ~/tf/bin/python      Keras from another environment
    python -m benchmarks.step --model vgg16 --compile --json step.json

All variants are timed in turn, --repeat rounds of --steps steps each; the median round counts, so that a machine whose speed drifts is fair to all.
In every round a large matrix product is timed too, fp32 and bf16: what the device can do at most, and the share of it that a step reaches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from animalclf import config as configuration
from animalclf.models import build
from animalclf.training.distributed import set_up_cpu
from animalclf.training.loop import autocast, choose_bf16
from animalclf.training.optim import make_optimizer

KERAS = """
import os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np, tensorflow as tf
from keras import layers as L
batch, size, steps, threads = map(int, sys.argv[1:])
tf.config.threading.set_intra_op_parallelism_threads(threads)
model = keras.Sequential([keras.Input((size, size, 3))])
for pair in ((32, 64), (128, 256), (256, 512), (512, 1024)):
    for width in pair:
        model.add(L.Conv2D(width, 3, activation="relu"))
    model.add(L.BatchNormalization())
    model.add(L.MaxPooling2D())
for layer in (L.Flatten(), L.Dense(512, "relu"), L.Dense(256, "relu"), L.Dropout(0.2), L.Dense(64, "relu"), L.Dense(10, "softmax")):
    model.add(layer)
model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
x, y = np.random.rand(batch, size, size, 3).astype("float32"), np.random.randint(0, 10, batch)
model.train_on_batch(x, y)
for line in sys.stdin:
    started = time.time()
    for _ in range(steps):
        model.train_on_batch(x, y)
    print(batch * steps / (time.time() - started), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="big_cnn", choices=["big_cnn", "vgg16"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="also torch.compile (minutes of compilation)")
    parser.add_argument(
        "--keras-python", default=sys.executable, metavar="PYTHON", help="a Python that has keras and tensorflow"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    figures = measure(arguments)
    show(figures)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=1)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    set_up_cpu(0, 1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec = configuration.load(arguments.model, {"model.weights": "none"})
    variants: dict[str, Callable[[], float]] = {}
    for compiled in (False, True) if arguments.compile else (False,):
        for precision in ("fp32", "bf16"):
            for layout in ("NCHW", "channels_last"):
                name = f"torch {precision} {layout}{' compiled' if compiled else ''}"
                variants[name] = variant(spec, device, precision, layout, compiled, arguments)
    keras = keras_process(arguments, spec.model.input_size) if arguments.model == "big_cnn" else None
    if keras:
        variants["Keras on TensorFlow fp32"] = lambda: ask(keras)
    rounds: dict[str, list[float]] = {name: [] for name in variants}
    peaks: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(arguments.repeat):
        for name, run in variants.items():
            rounds[name].append(run())
        for precision, each in peaks.items():
            each.append(matrix_flops(device, torch.float32 if precision == "fp32" else torch.bfloat16))
    if keras:
        keras.kill()
    speeds = {name: statistics.median(each) for name, each in rounds.items()}
    chosen = f"torch {'bf16' if choose_bf16('auto', device) else 'fp32'} channels_last"
    against = speeds.get("Keras on TensorFlow fp32")
    peak = {precision: statistics.median(each) for precision, each in peaks.items()}
    flops = step_flops(spec)
    return {
        "model": arguments.model,
        "batch_size": arguments.batch_size,
        "device": torch.cuda.get_device_name()
        if device.type == "cuda"
        else str(torch.cpu.get_capabilities().get("cpu_name")),
        "threads": torch.get_num_threads(),
        "images_per_s": speeds,
        "flops_per_picture": flops,
        "matrix_flops_per_s": peak,
        "share_of_peak": {
            name: speed * flops / peak["bf16" if "bf16" in name else "fp32"] for name, speed in speeds.items()
        },
        "default": chosen,
        "ratio_keras": speeds[chosen] / against if against else None,
    }


def variant(
    spec: configuration.Config,
    device: torch.device,
    precision: str,
    layout: str,
    compiled: bool,
    arguments: argparse.Namespace,
) -> Callable[[], float]:
    """A function that trains `steps` steps and returns pictures/s; warmed up."""
    model = build(spec.model, 10).to(device).train()
    if layout == "channels_last":
        model = model.to(memory_format=torch.channels_last)
    network: Any = torch.compile(model) if compiled else model
    optimizer = make_optimizer(model.parameters(), spec.optim)
    size, batch = spec.model.input_size, arguments.batch_size
    image = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8, device=device)
    if layout == "NCHW":
        image = image.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    label = torch.randint(0, 10, (batch,), device=device)

    def run(steps: int = arguments.steps) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with autocast(device, precision == "bf16"):
                logits = network(image)
            F.cross_entropy(logits, label).backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return batch * steps / (time.perf_counter() - started)

    run(1)
    return run


def step_flops(spec: configuration.Config) -> int:
    """Floating-point operations of a training step a picture (multiplications and additions of convolutions and matrix products)."""
    model = build(spec.model, 10).train()
    image = torch.zeros(2, spec.model.input_size, spec.model.input_size, 3, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        model(image).sum().backward()
    return int(counter.get_total_flops()) // len(image)


def matrix_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product, the most that a step could reach; the best of three."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times = []
    for _ in range(4):
        started = time.perf_counter()
        product = left @ right
        float(product[0, 0])  # waits for a GPU
        times.append(time.perf_counter() - started)
    return 2 * side**3 / min(times[1:])


def keras_process(arguments: argparse.Namespace, size: int) -> subprocess.Popen[str] | None:
    """The same layers in Keras, in a process of its own that trains a round for every line it reads; None where Keras is not installed."""
    if subprocess.run([arguments.keras_python, "-c", "import keras, tensorflow"], capture_output=True).returncode:
        return None
    numbers = [str(n) for n in (arguments.batch_size, size, arguments.steps, torch.get_num_threads())]
    command = [arguments.keras_python, "-c", KERAS, *numbers]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def ask(process: subprocess.Popen[str]) -> float:
    assert process.stdin and process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def show(figures: dict[str, Any]) -> None:
    title = f"training steps of {figures['model']}, batch {figures['batch_size']}, {figures['threads']} threads, {figures['device']}"
    table = Table(title=title, title_justify="left")
    for name in ("", "pictures/s", "against Keras", "share of matrix peak"):
        table.add_column(name)
    keras = figures["images_per_s"].get("Keras on TensorFlow fp32")
    for name, speed in figures["images_per_s"].items():
        mark = "  (the default here)" if name == figures["default"] else ""
        table.add_row(
            name + mark,
            f"{speed:.1f}",
            f"{speed / keras:.2f}" if keras else "",
            f"{figures['share_of_peak'][name]:.0%}",
        )
    Console(width=100).print(table)
    peak = figures["matrix_flops_per_s"]
    Console(width=100).print(
        f"{figures['flops_per_picture'] / 1e9:.1f} GFLOP a picture; matrix products reach {peak['fp32'] / 1e9:,.0f} GFLOP/s in fp32, "
        f"{peak['bf16'] / 1e9:,.0f} in bf16"
    )
    if keras is None:
        Console(width=100).print("Keras on TensorFlow was not measured: not installed in --keras-python")


if __name__ == "__main__":
    main()
