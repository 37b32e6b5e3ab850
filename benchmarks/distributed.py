"""Several hosts: images/s of the big CNN and of the input on 1, 2 and 3 of them, and the exchange of the gradients.

    python -m benchmarks.distributed                        a link as fast as this machine copies memory
    python -m benchmarks.distributed --gigabits 1 10        links of these speeds
    python -m benchmarks.distributed --plan                 no measurement: 64 GPUs on paper

A host is a network namespace (Linux, root, iproute2) with one thread, on a core of its own while there are enough. The
ideal is the speed of the same hosts at the same time without an exchange, so that hosts that share a core count as what
they are. Each trains --batch-size images a step, with the training loop, the loader and the exchange of the product.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table

from animalclf import config as configuration
from animalclf.data.loader import MemoryLoader, load_images
from animalclf.data.prepared_set import open_prepared
from animalclf.data.sampler import sampling_plan
from animalclf.models import build
from animalclf.training import loop
from animalclf.training.distributed import RankContext, data_parallel, set_up_cpu
from animalclf.training.optim import make_optimizer
from benchmarks.common import animalclf, argument_parser, run, write_json
from benchmarks.images import write_demo

BRIDGE, NETWORK, PORT = "anbench-br", "10.79.0", "29555"


@dataclass(frozen=True)
class Measurement:
    """Of `hosts` hosts on a link of `gigabits` Gbit/s (0: not limited). Images/s of all hosts together."""

    hosts: int
    gigabits: float
    input: float
    alone: float
    """Training without an exchange: the ideal."""
    fp32: float
    bf16: float
    exchange_s: dict[str, float]
    """Seconds of one exchange of all gradients, in fp32 and in bf16, while nothing is computed."""
    gradient_bytes: int
    """In fp32."""


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--gigabits", type=float, nargs="+", default=[0.0], help="speed of each link; 0 has no limit")
    parser.add_argument("--batch-size", type=int, default=32, help="of each host (default: 32)")
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each kind (default: 4)")
    parser.add_argument("--plan", action="store_true", help="print the plan for 64 GPUs and measure nothing")
    parser.add_argument("--rank", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--prepared", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        measure_rank(arguments)
    elif arguments.plan:
        show_plan()
    else:
        results = measure(arguments)
        show(results, arguments.batch_size)
        write_json(arguments.json, {"measurements": [vars(row) for row in results]})


# ------------------------------------------------------------------------------------------------------ hosts and links


def measure(arguments: argparse.Namespace) -> list[Measurement]:
    results = []
    with tempfile.TemporaryDirectory() as folder:
        photos, prepared = write_demo(f"{folder}/demo", 160), f"{folder}/prepared"
        animalclf("prepare", "--recipe", "big_cnn", "--data", photos, "--out", prepared, RAY_ADDRESS="local")
        for gigabits in arguments.gigabits:
            for hosts in arguments.hosts:
                with namespaces(hosts, gigabits) as names:
                    results.append(run_hosts(names, prepared, gigabits, arguments))
    return results


def run_hosts(names: list[str], prepared: str, gigabits: float, arguments: argparse.Namespace) -> Measurement:
    """One process in each namespace; the first prints the result."""
    cores = sorted(os.sched_getaffinity(0))
    processes = []
    for rank, name in enumerate(names):
        own = [cores[rank]] if len(names) <= len(cores) else cores
        command = ["ip", "netns", "exec", name, "taskset", "-c", ",".join(map(str, own)), sys.executable, "-m"]
        command += ["benchmarks.distributed", "--rank", str(rank), str(len(names)), "--prepared", prepared]
        command += ["--batch-size", str(arguments.batch_size), "--steps", str(arguments.steps)]
        environment = {**os.environ, "MASTER_ADDR": f"{NETWORK}.11", "MASTER_PORT": PORT, "GLOO_SOCKET_IFNAME": "eth0"}
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a host failed")
    return Measurement(**json.loads(outputs[0]), gigabits=gigabits)


@contextmanager
def namespaces(count: int, gigabits: float) -> Iterator[list[str]]:
    """`count` network namespaces on one bridge, each with an eth0 that sends at most `gigabits` Gbit/s."""
    names = [f"anbench-{number}" for number in range(1, count + 1)]

    def ip(*words: str) -> None:
        run(["ip", *words])

    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("link", "set", BRIDGE, "up")
        for number, name in enumerate(names, 1):
            ip("netns", "add", name)
            ip("link", "add", f"anbench-v{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"anbench-v{number}", "master", BRIDGE, "up")
            ip("-n", name, "addr", "add", f"{NETWORK}.{10 + number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")
            if gigabits:
                limit = ["tbf", "rate", f"{gigabits}gbit", "burst", "4mb", "latency", "100ms"]
                run(["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "eth0", "root", *limit])
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", BRIDGE], check=False)


# ----------------------------------------------------------------------------------------------------- one of the hosts


def measure_rank(arguments: argparse.Namespace) -> None:
    rank, world = arguments.rank
    set_up_cpu(1, 1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    config = configuration.load("big_cnn", {"train.batch_size": arguments.batch_size * world})
    prepared = open_prepared(arguments.prepared)
    plan = sampling_plan(prepared, config)
    rows = np.resize(plan.rows["train"], arguments.batch_size * world * arguments.steps)
    loader = MemoryLoader(replace(plan, rows={**plan.rows, "train": rows}), load_images(prepared), rank, world)
    images = len(rows)

    def train(ranks: RankContext, compression: str) -> float:
        torch.manual_seed(0)
        model = build(config.model, 10)
        network = data_parallel(model, ranks, compression)
        settings = loop.TrainPass(config, 0, np.full(arguments.steps, arguments.batch_size * ranks.world_size), ranks)
        optimizer = make_optimizer(model.parameters(), config.optim)
        warm_up = replace(settings, step_sizes=settings.step_sizes[:1])
        loop.train_epoch(network, [next(loader.batches("train", 0))], optimizer, warm_up)
        return slowest(lambda: loop.train_epoch(network, loader.batches("train", 0), optimizer, settings))

    gradients = torch.zeros(sum(parameter.numel() for parameter in build(config.model, 10).parameters()))
    together = RankContext(rank, world)
    result = {
        "hosts": world,
        "input": 20 * images / slowest(lambda: [list(loader.batches("train", epoch)) for epoch in range(20)]),
        "alone": images / train(RankContext(), "none"),
        "fp32": images / train(together, "none"),
        "bf16": images / train(together, "bf16"),
        "exchange_s": {
            "fp32": slowest(lambda: dist.all_reduce(gradients)),
            "bf16": slowest(lambda: dist.all_reduce(gradients.bfloat16())),
        },
        "gradient_bytes": 4 * gradients.numel(),
    }
    if rank == 0:
        print(json.dumps(result))
    dist.destroy_process_group()


def slowest(action: Callable[[], object]) -> float:
    """Seconds until every rank has done it; all begin together."""
    dist.barrier()
    started = time.perf_counter()
    action()
    seconds = torch.tensor(time.perf_counter() - started)
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    return float(seconds)


def show(results: list[Measurement], batch_size: int) -> None:
    megabytes = results[0].gradient_bytes / 1e6
    title = f"big CNN, {batch_size} images a host and step, {megabytes:.0f} MB of gradients in fp32"
    table = Table(title=title, title_justify="left")
    columns = ("Gbit/s", "hosts", "input", "no exchange", "fp32", "of ideal", "bf16", "of ideal", "fp32, s", "bf16, s")
    for heading in columns:
        table.add_column(heading)
    for row in results:
        numbers = [f"{row.input:,.0f}", f"{row.alone:.1f}", f"{row.fp32:.1f}", f"{row.fp32 / row.alone:.0%}"]
        numbers += [f"{row.bf16:.1f}", f"{row.bf16 / row.alone:.0%}"]
        exchanges = [f"{seconds:.2f}" for seconds in row.exchange_s.values()]
        table.add_row(f"{row.gigabits:g}" if row.gigabits else "no limit", str(row.hosts), *numbers, *exchanges)
    Console(width=120).print(table)


# ----------------------------------------------------------------------------------------------------- 64 GPUs on paper

IMAGES_PER_S = 13_486
"""Of one H100, the big CNN compiled at 128 px and batch 128 (docs/gpu.md)."""
FIXED_S = 0.001
"""Of a step, at any batch size: launches and the optimizer. Assumed."""
HIDDEN = 2 / 3
"""Fraction of a step's computation behind which an exchange can hide: the backward pass."""
LATENCY_S = 30e-6
"""Of one of the 2 (n - 1) messages of a ring. Assumed."""


def step_seconds(gpus: int, images: float, gradient_bytes: float, gigabits: float) -> float:
    """Seconds of a step on `gpus` GPUs of one ring, each with `images` images and a link of `gigabits` Gbit/s.

    A ring sends 2 (n - 1) / n times the gradients over each link (Patarasuk, Yuan 2009). DDP exchanges while the
    backward pass computes.
    """
    compute = FIXED_S + images / IMAGES_PER_S
    exchange = 2 * (gpus - 1) / gpus * gradient_bytes * 8 / (gigabits * 1e9) + 2 * (gpus - 1) * LATENCY_S
    return compute + max(0.0, exchange - HIDDEN * compute)


def show_plan() -> None:
    """Efficiency against one GPU with the same images per GPU."""
    gradient_bytes = 4 * sum(p.numel() for p in build(configuration.load("big_cnn", {}).model, 10).parameters())
    table = Table(title=f"big CNN, {gradient_bytes / 1e6:.0f} MB of gradients, H100: efficiency", title_justify="left")
    for heading in ("link of each GPU", "images a GPU", "numbers", *(f"{gpus} GPUs" for gpus in (2, 8, 16, 32, 64))):
        table.add_column(heading)
    for gigabits in (10, 50, 400):
        for images in (128 / 64, 32, 128, 512):
            for name, size in (("fp32", gradient_bytes), ("bf16", gradient_bytes / 2)):
                ideal = FIXED_S + images / IMAGES_PER_S
                cells = [f"{ideal / step_seconds(gpus, images, size, gigabits):.0%}" for gpus in (2, 8, 16, 32, 64)]
                table.add_row(f"{gigabits} Gbit/s", f"{images:g}", name, *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
