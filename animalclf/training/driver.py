"""The driver's side of `train`: preparation, checks before the start, Ray Train, live progress, the result."""

from __future__ import annotations

import os
import queue
import tempfile
import threading
import uuid
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data.prepared_set import FORMAT, Prepared, is_prepared, open_prepared
from animalclf.errors import UserError
from animalclf.rows import Moment, ProgressEvent, TrainingResult
from animalclf.runs import STALE_SECONDS, Run
from animalclf.training.losses import LOSSES
from animalclf.training.lr_schedules import LR_SCHEDULES
from animalclf.training.progress import open_mailbox
from animalclf.training.resources import Workers, choose_cache, cluster_text, input_cpus, preflight, scaling
from animalclf.utils import storage
from animalclf.utils.console import console
from animalclf.utils.malloc import ONE_ARENA
from animalclf.utils.throttle import Throttle

if TYPE_CHECKING:
    from animalclf.data.loader import Loader
    from animalclf.data.ray_loader import ImageCache
    from animalclf.data.sampler import Phase, SamplingPlan
    from animalclf.training.stop import Switch
    from animalclf.training.worker import Task

Report = Callable[[ProgressEvent], None]
POLL_SECONDS = 0.2  # between two looks for events of the workers
SILENCE_SECONDS = 60.0  # without an event of the workers, until that is reported
EXECUTION = (
    "profile",
    "compile",
    "compile_from",
    "cuda_graphs",
)  # keys of `train` that change nothing of what is trained: a resume may differ
DEFAULT_MODEL = configuration.Model().name
ATTEMPTS_TO_PLACE = (
    60  # of half a minute each (cluster.ensure_ray): machines may have to be started, or come back, first
)
SECONDS_TO_STOP = 30.0  # for the workers to end after an interrupt


# -------------------------------------------------------------------------------------------- checks before any work


def checked(config: Config) -> Config:
    """`config` with the path of pretrained weights made absolute, since workers have other working directories.

    Raises UserError, before any long work, for an unknown loss or model, and for weights that are missing or cannot be
    downloaded.
    """
    LOSSES.get(config.train.loss)
    if config.model.name != DEFAULT_MODEL:  # the models import PyTorch, which takes seconds
        from animalclf.models.registry import MODELS

        MODELS.get(config.model.name)
    source = config.model.weights
    if source == "none":
        return config
    from animalclf.models import weights

    weights.check(config.model.name, source)
    path = source if source == "imagenet" else storage.absolute(source)
    return replace(config, model=replace(config.model, weights=path))


def claim(out: str, config: Config, resume: bool, same_length: bool = False) -> Run:
    """Lock the run folder `out` for this process. Raises UserError for a folder in use, an existing run without
    `resume`, nothing to resume, or a configuration that differs from the run's in more than its length, or
    (`same_length`) at all."""
    run = Run(storage.absolute(out))
    if run.exists():
        if not resume:
            raise UserError(f"{out}: there is a run here already; continue it with --resume, or choose another --out")
        changed = _changed(run.config(), config)
        if changed and (same_length or not is_longer(run, config)):
            raise UserError(
                f"{out}: the configuration differs from the run's, so it cannot be resumed: {'; '.join(changed)}"
            )
    elif resume:
        raise UserError(f"{out}: no run to resume here (config.yaml is missing); start it without --resume")
    run.lock()
    return run


def _changed(stored: Config, config: Config) -> list[str]:
    same = {name: getattr(stored.train, name) for name in EXECUTION}
    return configuration.differences(stored, replace(config, train=replace(config.train, **same)))


def is_longer(run: Run, config: Config) -> bool:
    """Whether `config` differs from the run's in its length only: `train.epochs` and `train.patience`. Raises UserError
    where the run cannot go on to that length, because its epochs so far would have been others, or fewer: finished
    epochs are not undone."""
    stored, epochs, history = run.config(), config.train.epochs, run.metrics()
    if not configuration.changed_keys(stored, config).keys() <= {
        "train.epochs",
        "train.patience",
        *(f"train.{name}" for name in EXECUTION),
    }:
        return False
    from animalclf.training.train_state import out_of_patience

    change, schedule = f"{run.root}: {'; '.join(_changed(stored, config))}", config.optim.schedule
    if epochs != stored.train.epochs and LR_SCHEDULES.get(schedule).depends_on_epochs:
        raise UserError(
            f"{change}: with optim.schedule={schedule} the learning rate of every epoch depends on it; start a new run"
        )
    if epochs < len(history):
        raise UserError(f"{change}: {len(history)} epochs are done already; resume with {len(history)} or more")
    last = next((done for done in range(1, len(history) + 1) if out_of_patience(history[:done], config)), epochs)
    if last < len(history) or (last < epochs and run.finished()):
        raise UserError(
            f"{change}: ends after epoch {last}, {config.train.patience} without a better one; resume with more train.patience"
        )
    return True


def prepared_for(
    data: str, config: Config, where: str, explicit: Collection[str] = (), workers: int = 0
) -> tuple[Prepared, Config]:
    """The prepared set `data`, or the one made of the images `data` below `where` (reused where it is there); and
    `config` with the set's own data settings. If Ray must be started for that, it has room for `workers` training
    workers.

    Raises UserError where a prepared set contradicts the recipe: images stored too small, or a `data.` key in
    `explicit` that differs.
    """
    if not is_prepared(data):
        from animalclf.prepare import sources
        from animalclf.prepare.job import prepare

        source = sources.find(data, config.data)
        name = f"{sources.inputs_hash(source, config.data)[:12]}-{FORMAT}"
        return prepare(source, storage.join(where, name), config.data, workers=workers), config
    prepared = open_prepared(data)
    if prepared.stored_size < config.model.input_size:
        raise UserError(
            f"{data}: images are stored at {prepared.stored_size} px, the recipe {config.name} reads {config.model.input_size} px; "
            f"prepare them again with --recipe {config.name}"
        )
    stored = replace(configuration.data_from_dict(prepared.info["config"]), limit=config.data.limit)
    changed = configuration.changed_keys(replace(config, data=stored), config)
    other = [f"{key}: {was} -> {now}" for key, (was, now) in changed.items() if key in explicit]
    if other:
        raise UserError(
            f"{data}: was prepared with other settings ({'; '.join(other)}); prepare it again, or leave out these --set"
        )
    return prepared, replace(config, data=stored)


# --------------------------------------------------------------------------------------------------------------- start


def start(
    config: Config, prepared: Prepared, run: Run, workers: Workers, cpu: bool, local: bool, report: Report
) -> TrainingResult:
    """Print the plan, record it in the run folder, and train in this process (`local`) or on Ray. Returns the content
    of result.json.

    Raises UserError for more workers than training images, for a model that cannot be built, and for what the cluster
    cannot hold."""
    images = len(prepared.rows("train"))
    if images < workers.maximum:
        raise UserError(f"{images} training images for {workers.maximum} workers; every worker needs at least one")
    with ThreadPoolExecutor(1) as background:  # the check imports PyTorch for seconds; Ray's start mostly waits
        check = background.submit(_check_model, config, len(prepared.classes))
        if local:
            workers, in_memory, place = Workers.fixed(1), True, "in this process"
        else:
            workers, in_memory, place = _place_on_ray(config, prepared, run, workers, cpu)
        report(Moment("ray ready"))
        check.result()
    record(config, prepared, run, workers=str(workers), gpu=workers.use_gpu)
    console.print(_plan(config, prepared, run, place), soft_wrap=True)
    if local:
        return train_here(config, prepared, run, report, cpu)
    from animalclf.data.ray_loader import cache_images

    return train_on_ray(config, prepared, run, workers, report, cache_images(prepared, in_memory, input_cpus(workers)))


def _check_model(config: Config, classes: int) -> None:
    """Build the model without memory: what is wrong with its settings shows before the run folder is taken. Raises UserError."""
    import torch

    from animalclf.models import build

    with torch.device("meta"):
        build(config.model, classes, load_weights=False)


def _place_on_ray(
    config: Config, prepared: Prepared, run: Run, workers: Workers, cpu: bool
) -> tuple[Workers, bool, str]:
    """The workers as the cluster has room for them, whether the images fit into its memory, and both in words. Raises
    UserError."""
    from animalclf.cluster import at_most, ensure_ray, gpus

    ensure_ray(workers.maximum)
    use_gpu = not cpu and at_most().get("GPU", 0) > 0
    if not workers.maximum:
        workers = Workers.fixed(max(gpus(), 1) if use_gpu else 1)
    workers = replace(workers, use_gpu=use_gpu)
    weights = [config.model.weights] if config.model.weights not in ("none", "imagenet") else []
    resources = preflight(workers, [prepared.root, run.root, *weights])
    in_memory, images = choose_cache(config.train.cache, prepared)
    return workers, in_memory, f"on {workers.text} ({resources}), {images}"


def _plan(config: Config, prepared: Prepared, run: Run, place: str) -> str:
    train, val = len(prepared.rows("train")), len(prepared.rows("val"))
    done, epochs = len(run.metrics()), config.train.epochs
    data = f"{train:,} training and {val:,} validation images, {len(prepared.classes)} classes"
    length = f"epochs {done + 1} to {epochs}" if done else "1 epoch" if epochs == 1 else f"{epochs} epochs"
    return f"{config.name}: {data}, {length} {place}; run folder {run.root}"


def record(config: Config, prepared: Prepared, run: Run, **facts: Any) -> None:
    """Make the folder a run of `config` on `prepared`, with `facts` in its environment. Raises UserError for a run on
    other images."""
    if not run.exists():
        run.write_environment(
            prepared=prepared.root, data=prepared.info["source"], data_fingerprint=prepared.fingerprint, **facts
        )
        run.write_config(config)  # last: it makes the folder a run
        return
    stored = run.environment()
    if stored.data_fingerprint != prepared.fingerprint:
        raise UserError(
            f"{run.root}: was trained on other images ({stored.prepared}, fingerprint {stored.data_fingerprint[:12]}; now {prepared.root}, "
            f"{prepared.fingerprint[:12]}); resume with the same images, or start a new run"
        )
    if _changed(run.config(), config):  # is_longer: until the new epochs are done it is an unfinished training
        storage.remove(run.url("result.json"))
        run.write_config(config)


def train_here(config: Config, prepared: Prepared, run: Run, report: Report, cpu: bool = False) -> TrainingResult:
    """`--local`: the same training in this process, on its GPU where there is one (not with `cpu`), without Ray, so that breakpoints work."""
    import torch

    from animalclf.data.device_loader import DeviceLoaders
    from animalclf.data.loader import MemoryLoader, load_images
    from animalclf.training.distributed import RankContext, set_up_cpu
    from animalclf.training.train import train

    set_up_cpu(config.train.threads, 1)
    device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
    images, resident = load_images(prepared), DeviceLoaders(prepared.stored_size**2 * 3, device)

    def make_loader(plan: SamplingPlan, passes: Sequence[tuple[Phase, int]]) -> Loader:
        return resident.of(plan, lambda: images) or MemoryLoader(plan, images)

    return train(config, prepared, run, make_loader, RankContext(device=device), report=report)


# -------------------------------------------------------------------------------------------------------- on Ray Train


def train_on_ray(
    config: Config,
    prepared: Prepared,
    run: Run,
    workers: Workers,
    report: Report,
    images: ImageCache | None = None,
    switch: Switch | None = None,
) -> TrainingResult:
    """Train on `workers` Ray Train workers. Dead workers are replaced up to `train.max_failures` times, each costing
    the running epoch. `images`: where the stored images are cached, possibly for several trainings (default: in the
    object store, for this one).

    Raises UserError for what the user can fix, stop.Stopped where `switch` ended the training, and Ray's
    TrainingFailedError otherwise. Ctrl-C stops the workers; `--resume` continues.
    """
    from animalclf.data.ray_loader import cache_images
    from animalclf.training.stop import Switch
    from animalclf.training.worker import Task

    mailbox, switch = open_mailbox(), switch or Switch()
    task = Task(
        config, prepared.root, run.root, images or cache_images(prepared, num_cpus=input_cpus(workers)), mailbox
    )
    fit = _Fit(_trainer(task, workers), switch)
    switch.begin(mailbox)
    fit.start()
    try:
        return _follow(fit, mailbox, run, workers, report)
    except (
        BaseException
    ):  # an interrupt, a lost lock, a full disk: no worker may go on with a run folder that is no longer locked
        _stop(switch)
        raise


def _stop(switch: Switch) -> None:
    """End the training, which may run in a Ray of the caller's, who goes on with it."""
    import ray

    try:
        switch.stop()
        switch.wait(SECONDS_TO_STOP)
    except (
        ray.exceptions.RayError
    ) as error:  # the mailbox died with its node; what ended the training is raised, and not this
        console.print(f"the workers could not be stopped ({type(error).__name__})", soft_wrap=True)


def _trainer(task: Task, workers: Workers) -> Any:
    """Ray Train's trainer of a training."""
    import ray.train
    import ray.train.torch

    from animalclf.raycompat.train_controller import trainer_class
    from animalclf.training.stop import EndRun
    from animalclf.training.worker import worker

    failures = ray.train.FailureConfig(
        max_failures=task.config.train.max_failures, controller_failure_limit=ATTEMPTS_TO_PLACE
    )
    return (trainer_class() or ray.train.torch.TorchTrainer)(
        worker,
        train_loop_config={"task": task},
        scaling_config=scaling(workers),
        run_config=ray.train.RunConfig(
            name=f"animalclf-{uuid.uuid4().hex[:12]}",
            storage_path=tempfile.gettempdir(),  # Ray stores nothing of ours: the run folder is the checkpoint store
            # A cluster's processes start in its own environment: ours has it where cluster.yaml made the cluster, or `ensure_ray`.
            worker_runtime_env={} if os.environ.items() >= ONE_ARENA.items() else {"env_vars": ONE_ARENA},
            failure_config=failures,
            callbacks=[EndRun(task.mailbox)],
        ),
    )


class _Fit(threading.Thread):
    """`trainer.fit()` in a thread, so that Ctrl-C reaches the main thread and not Ray's handler."""

    def __init__(self, trainer: Any, switch: Switch) -> None:
        super().__init__(daemon=True)
        self.trainer, self.switch = trainer, switch
        self.outcome: queue.Queue[TrainingResult | Exception] = queue.Queue()

    def run(self) -> None:
        """Put the result, or the error that ended the training, into `outcome`."""
        from animalclf.training.stop import Stopped

        try:
            self.outcome.put(self.trainer.fit().return_value or Stopped())
        except Exception as error:  # noqa: BLE001  (raised in the main thread, which would hang without it)
            self.outcome.put(Stopped() if self.switch.requested else error)
        finally:
            self.switch.end()


def _follow(fit: _Fit, mailbox: Any, run: Run, workers: Workers, report: Report) -> TrainingResult:
    """Until the training ends: pass its events on, renew the run folder's lock, and say when the workers are silent.
    Returns its result; raises its error."""
    import ray

    lock, silence = Throttle(STALE_SECONDS / 4), Throttle(SILENCE_SECONDS)
    lock.reset()
    silence.reset()
    while True:
        if lock.ready():
            run.lock()
        try:
            result = fit.outcome.get(timeout=POLL_SECONDS)
        except queue.Empty:
            result = None
        for event in ray.get(mailbox.take.remote()):
            report(event)
            silence.reset()
        if silence.ready():
            console.print(
                f"no sign of the workers for a minute ({workers.text} requested; the cluster has {cluster_text()} now)",
                soft_wrap=True,
            )
        if isinstance(result, Exception):
            raise result
        if result is not None:
            return result
