"""The plan of one training: its images, a rehearsal on a sample of them, and the estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from animalclf import architectures
from animalclf.config import Config
from animalclf.errors import UserError
from animalclf.planning import estimate, measure, sample
from animalclf.planning.estimate import Setting
from animalclf.planning.images import Images
from animalclf.planning.machine import Machine, on_worker
from animalclf.planning.sample import SampleTask
from animalclf.rows import TrainingPlan
from animalclf.training.checks import trains_on_features
from animalclf.training.resources import Workers, choose_cache_in
from animalclf.utils import storage
from animalclf.utils.console import show_line
from animalclf.utils.text import count_text, size_text

FEATURE_IMAGES, GPU_FEATURE_IMAGES = 128, 512  # of the sample of a training on the features of a frozen base
FEATURE_BATCH = 32  # at most, of such a sample: the first of its batches warms up
STEP_IMAGES = 64  # of an epoch of the sample: at least, and at least one step
MAX_SAMPLE_BYTES = 2**30
LOW_ROOM = 0.9  # of the memory of the nodes: what a training may take


@dataclass(frozen=True)
class Request:
    """Where a training would run, and for which price."""

    machine: Machine
    workers: int
    local: bool = False
    cpu: bool = False
    price_per_hour: float | None = None

    @property
    def use_gpu(self) -> bool:
        return not self.cpu and self.machine.gpus > 0


def worker_count(workers: Workers, machine: Machine, local: bool, cpu: bool) -> int:
    """As `launch` chooses it: of an elastic number the maximum. Raises UserError for more than the machine has room
    for."""
    if local:
        return 1
    use_gpu = not cpu and machine.gpus > 0
    count = workers.maximum or (machine.gpus if use_gpu else 1)
    room = machine.gpus if use_gpu else machine.cpus - 1
    if machine.is_cluster and max(workers.minimum, 1) > max(room, 1):
        raise UserError(f"--workers {workers}: {machine.text} have room for {room}; request fewer workers")
    return count


def setting_of(images: Images, config: Config, request: Request, done_epochs: int = 0) -> Setting:
    """The images with a rehearsal of the training `config` on a sample of them. Raises UserError for what the training
    would fail by."""
    task = _task(images, config, request)
    total = count_text(images.total, "image")
    count = min(task.sample.training_images, len(task.sample.rows))
    show_line(f"{config.name}: rehearsing the training on {count:,} of {total}")
    answer = on_worker(request.machine, request.use_gpu, measure.run, task)
    if not answer.measured:
        raise UserError(answer.error)
    return Setting(
        config,
        images,
        request.machine,
        request.workers,
        request.local,
        answer.measured,
        answer.prepare,
        answer.features_are_cached,
        done_epochs,
    )


def _task(images: Images, config: Config, request: Request) -> SampleTask:
    trains_on_ray = not (request.local or request.use_gpu or request.machine.is_cluster)
    workers = request.workers if trains_on_ray else 1
    batch_size = math.ceil(config.train.batch_size * workers / request.workers)
    on_features = trains_on_features(config)
    if on_features:
        batch_size = min(batch_size, FEATURE_BATCH * workers)
    steps = math.ceil(STEP_IMAGES / batch_size)
    size = steps * batch_size * sample.VAL_EVERY // (sample.VAL_EVERY - 1)
    if on_features:
        size = GPU_FEATURE_IMAGES if request.use_gpu else FEATURE_IMAGES
    size = max(8, 2 * workers, min(size, MAX_SAMPLE_BYTES // (3 * config.data.stored_size**2)))
    train = images.rows["train"] / max(1, sum(images.rows.values()))
    return SampleTask(
        config,
        sample.choose(images, size),
        [max(1, round(count * train)) for _, count in sorted(images.class_counts.items())],
        batch_size,
        workers,
        math.ceil(request.workers / len(request.machine.nodes)),
        request.cpu,
        starts_ray=not request.machine.is_cluster and not (request.local and images.prepared),
        trains_on_ray=trains_on_ray,
        on_features=on_features,
    )


def without_download(config: Config) -> Config:
    """`config`, with random weights if its pretrained weights would have to be downloaded: the steps take as long."""
    source = config.model.weights
    if source != "imagenet" and not architectures.ENTRY.fullmatch(source):
        return config
    if not config.model.name.startswith(architectures.TIMM):
        from animalclf.models import weights

        if weights.torchvision_file(config.model.name, source).exists():
            return config
    return replace(config, model=replace(config.model, weights="none"))


def plan(setting: Setting, data: str, run: str, price_per_hour: float | None = None) -> TrainingPlan:
    """The plan of the training. `run`: URL of its folder; `price_per_hour`: of one device. Raises UserError if the
    images do not fit where `train.cache` puts them."""
    images, config, machine = setting.images, setting.config, setting.machine
    stores = [node.store for node in machine.nodes]
    in_store, cache_text = choose_cache_in(stores, config.train.cache, images.pixel_bytes)
    seconds = estimate.phase_seconds(setting)
    memory = estimate.memory_bytes(setting, in_store)
    nodes = len(machine.nodes) if not setting.local else 1
    room = {
        "worker": min(node.memory for node in machine.nodes),
        "total": sum(node.memory for node in machine.nodes[:nodes]),
        "object_store": min(node.store for node in machine.nodes),
        "gpu": setting.measured.gpu_total or 0,
    }
    room = {name: room[name] for name in memory}
    problems = memory_problems(config, memory, room)
    if not in_store and not setting.local and config.train.cache != "disk":
        problems.append(f"{cache_text}, in every epoch; to fit, store them smaller (data.stored_size)")
    written = estimate.written_bytes(setting)
    if "cached views" in written and not machine.is_cluster:
        from animalclf.training.cached_views import check_room

        check_room(written["cached views"])
    total = sum(seconds.values())
    hours = setting.devices * total / 3600
    weights = config.model.weights_file
    train = setting.passes[-1][0]
    return TrainingPlan(
        recipe=config.name,
        run=run,
        data=data,
        prepared=images.folder,
        is_prepared=images.prepared is not None,
        rows=images.rows,
        class_counts=images.class_counts,
        epochs=config.train.epochs,
        trainings=len(setting.passes),
        steps=0 if config.train.heads else estimate.steps_of(train, config.train.batch_size),
        workers=setting.workers,
        machine=machine.text,
        measured=setting.measured,
        seconds=seconds,
        total_seconds=total,
        memory=memory,
        room=room,
        read=estimate.read_bytes(setting, storage.size(weights) if weights else 0),
        written=written,
        rewritten=estimate.rewritten_bytes(setting),
        devices=setting.devices,
        device_hours=hours,
        price_per_hour=price_per_hour,
        price=None if price_per_hour is None else hours * price_per_hour,
        problems=problems,
    )


def memory_problems(config: Config, memory: dict[str, int], room: dict[str, int]) -> list[str]:
    """What does not fit into memory, and the key to change."""
    step = (
        f"lower train.batch_size (now {config.train.batch_size}), or compute a step in pieces with "
        f"train.accumulate={2 * config.train.accumulate}"
    )
    problems = []
    for name, what, remedy in (
        ("gpu", "a GPU", step),
        ("worker", "the smallest node", f"{step}; with --local also data.stored_size"),
        ("total", "all nodes together", "use fewer --workers, or store the images smaller (data.stored_size)"),
    ):
        need, there = memory.get(name, 0), room.get(name, 0)
        if there and need > LOW_ROOM * there:
            problems.append(f"memory: {size_text(need)} are needed, {what} has {size_text(there)}; {remedy}")
    return problems
