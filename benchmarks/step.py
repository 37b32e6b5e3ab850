"""Training images/s of one step, without data loading: precision x memory layout x eager or compiled, and Keras on
TensorFlow if it is installed.

    python -m benchmarks.step                                     big CNN at batch 32, and Keras if this Python has it
    python -m benchmarks.step --keras-python ~/tf/bin/python      Keras from another environment
    python -m benchmarks.step --model vgg16 --compile --json step.json

All variants are timed in turn, --repeat rounds of --steps steps each; the median round counts, so that a drift of the
machine's speed affects all. Every round also times a large matrix product in fp32 and bf16: the peak of the device, and
the fraction of it that a step reaches.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from benchmarks.common import argument_parser, write_json

KERAS_VARIANT = "Keras on TensorFlow fp32"
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
head = (L.Flatten(), L.Dense(512, "relu"), L.Dense(256, "relu"), L.Dropout(0.2), L.Dense(64, "relu"))
for layer in (*head, L.Dense(10, "softmax")):
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


@dataclass(frozen=True)
class Results:
    model: str
    batch_size: int
    device: str
    threads: int
    images_per_s: dict[str, float]
    """Of each variant."""
    flops_per_image: int
    matrix_flops_per_s: dict[str, float]
    """Of fp32 and bf16."""
    default: str
    """The variant that a training chooses here."""

    def peak_fraction(self, variant: str) -> float:
        peak = self.matrix_flops_per_s["bf16" if "bf16" in variant else "fp32"]
        return self.images_per_s[variant] * self.flops_per_image / peak


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="big_cnn", choices=["big_cnn", "vgg16"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="also torch.compile (minutes of compilation)")
    parser.add_argument(
        "--keras-python", default=sys.executable, metavar="PYTHON", help="a Python that has keras and tensorflow"
    )
    arguments = parser.parse_args()
    results = measure(arguments)
    show(results)
    write_json(arguments.json, results)


def measure(arguments: argparse.Namespace) -> Results:
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
        variants[KERAS_VARIANT] = lambda: keras_round(keras)
    rounds: dict[str, list[float]] = {name: [] for name in variants}
    peaks: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(arguments.repeat):
        for name, run in variants.items():
            rounds[name].append(run())
        for precision, flops in peaks.items():
            flops.append(matrix_flops(device, torch.float32 if precision == "fp32" else torch.bfloat16))
    if keras:
        keras.kill()
    is_gpu = device.type == "cuda"
    return Results(
        model=arguments.model,
        batch_size=arguments.batch_size,
        device=torch.cuda.get_device_name() if is_gpu else str(torch.cpu.get_capabilities().get("cpu_name")),
        threads=torch.get_num_threads(),
        images_per_s={name: statistics.median(speeds) for name, speeds in rounds.items()},
        flops_per_image=step_flops(spec),
        matrix_flops_per_s={precision: statistics.median(flops) for precision, flops in peaks.items()},
        default=f"torch {'bf16' if choose_bf16('auto', device) else 'fp32'} channels_last",
    )


def variant(
    spec: configuration.Config,
    device: torch.device,
    precision: str,
    layout: str,
    compiled: bool,
    arguments: argparse.Namespace,
) -> Callable[[], float]:
    """A function that trains `steps` steps and returns images/s; warmed up."""
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
    """Floating-point operations of a training step per image (multiplications and additions of convolutions and matrix
    products)."""
    model = build(spec.model, 10).train()
    image = torch.zeros(2, spec.model.input_size, spec.model.input_size, 3, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        model(image).sum().backward()
    return int(counter.get_total_flops()) // len(image)


def matrix_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product, an upper bound for a step; the best of three."""
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
    """The same layers in Keras, in another process that trains one round per line of its input; None if Keras is not
    installed."""
    if subprocess.run([arguments.keras_python, "-c", "import keras, tensorflow"], capture_output=True).returncode:
        return None
    numbers = [str(n) for n in (arguments.batch_size, size, arguments.steps, torch.get_num_threads())]
    command = [arguments.keras_python, "-c", KERAS, *numbers]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def keras_round(process: subprocess.Popen[str]) -> float:
    assert process.stdin and process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def show(results: Results) -> None:
    title = (
        f"training steps of {results.model}, batch {results.batch_size}, {results.threads} threads, {results.device}"
    )
    table = Table(title=title, title_justify="left")
    for heading in ("", "images/s", "against Keras", "fraction of matrix peak"):
        table.add_column(heading)
    keras = results.images_per_s.get(KERAS_VARIANT)
    for name, speed in results.images_per_s.items():
        label = f"{name}  (the default here)" if name == results.default else name
        ratio = f"{speed / keras:.2f}" if keras else ""
        table.add_row(label, f"{speed:.1f}", ratio, f"{results.peak_fraction(name):.0%}")
    console, peak = Console(width=100), results.matrix_flops_per_s
    console.print(table)
    console.print(
        f"{results.flops_per_image / 1e9:.1f} GFLOP per image; matrix products reach {peak['fp32'] / 1e9:,.0f} GFLOP/s "
        f"in fp32, {peak['bf16'] / 1e9:,.0f} in bf16"
    )
    if keras is None:
        console.print("Keras on TensorFlow was not measured: not installed in --keras-python")


if __name__ == "__main__":
    main()
