"""The driver's side of `train`: preparation, checks before the start, Ray Train, live progress, the result."""

from __future__ import annotations

import importlib
import os
import queue
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from animalclf import config as configuration
from animalclf.config import Config
from animalclf.data.prepared_set import FORMAT, Prepared, is_prepared, open_prepared
from animalclf.errors import UserError
from animalclf.rows import Moment, ProgressEvent, TrainingResult
from animalclf.runs import STALE_SECONDS, Run
from animalclf.training.progress import open_mailbox
from animalclf.training.resources import Workers, choose_cache, input_claim, preflight, scaling, what_there_is
from animalclf.utils import storage
from animalclf.utils.console import console
from animalclf.utils.malloc import ONE_ARENA

if TYPE_CHECKING:
    from animalclf.data.ray_loader import Cache
    from animalclf.training.stop import Switch

Report = Callable[[ProgressEvent], None]
SILENCE = 60.0  # seconds without an event of the workers after which that is said
ATTEMPTS_TO_PLACE = 60  # of half a minute each (cluster.ensure_ray): machines may have to be started, or come back, first


def claim(out: str, config: Config, resume: bool, same_length: bool = False) -> Run:
    """The run folder `out`, claimed for this process. Raises UserError for a folder in use, an existing run without `resume`, nothing to resume,
    or a configuration that differs from the run's in more than how long it trains, with `same_length` in anything."""
    run = Run(storage.absolute(out))
    if run.exists():
        if not resume:
            raise UserError(f"{out}: there is a run here already; continue it with --resume, or choose another --out")
        changed = _changed(run.config(), config)
        if changed and (same_length or not longer(run, config)):
            raise UserError(f"{out}: the configuration differs from the run's, so it cannot be resumed: {'; '.join(changed)}")
    elif resume:
        raise UserError(f"{out}: no run to resume here (config.yaml is missing); start it without --resume")
    run.lock()
    return run


def _changed(was: Config, config: Config) -> list[str]:
    return configuration.differences(was, replace(config, train=replace(config.train, profile=was.train.profile)))


def longer(run: Run, config: Config) -> bool:
    """Whether `config` differs from the run's in nothing but how long it trains: `train.epochs` and `train.patience`. Raises UserError where the run
    cannot go on to those, because its epochs so far would have been others, or fewer: what was trained is not taken back."""
    was, epochs, history = run.config(), config.train.epochs, run.metrics()
    if not configuration.changed_keys(was, config).keys() <= {"train.epochs", "train.patience", "train.profile"}:
        return False
    from animalclf.training.train_state import out_of_patience

    change = f"{run.root}: {'; '.join(_changed(was, config))}"
    if epochs != was.train.epochs and config.optim.schedule != "constant":
        raise UserError(f"{change}: with optim.schedule={config.optim.schedule} the learning rate of every epoch depends on it; start a new run")
    if epochs < len(history):
        raise UserError(f"{change}: {len(history)} epochs are done already; resume with {len(history)} or more")
    ended = next((done for done in range(1, len(history) + 1) if out_of_patience(history[:done], config)), epochs)
    if ended < len(history) or (ended < epochs and run.finished()):
        raise UserError(f"{change}: ends after epoch {ended}, {config.train.patience} without a better one; resume with more train.patience")
    return True


def with_weights(config: Config) -> Config:
    """`config` with the path of pretrained weights made absolute (workers run elsewhere). Raises UserError now, before any long work, where the
    weights cannot be had: a file that is not there, or a download that fails."""
    source = config.model.weights
    if source == "none":
        return config
    from animalclf.models import weights

    weights.check(config.model.name, source)
    path = source if source == "imagenet" else storage.absolute(source)
    return replace(config, model=replace(config.model, weights=path))


def prepared_for(data: str, config: Config, where: str, explicit: Collection[str] = (), workers: int = 0) -> tuple[Prepared, Config]:
    """The prepared set that `data` is, or that is made of it (and found again) below `where`; and `config` with the set's own data settings.
    A Ray that must be started for that has room for `workers` training workers.

    Raises UserError where a prepared set contradicts the recipe: pictures stored too small, or a `data.` key in `explicit` that differs.
    """
    if is_prepared(data):
        prepared = open_prepared(data)
        stored = replace(configuration.data_from_dict(prepared.info["config"]), limit=config.data.limit)
        if prepared.stored_size < config.model.input_size:
            raise UserError(
                f"{data}: pictures are stored at {prepared.stored_size} px, the recipe {config.name} reads {config.model.input_size} px; "
                f"prepare them again with --recipe {config.name}"
            )
        changed = configuration.changed_keys(replace(config, data=stored), config)
        other = [f"{key}: {was} -> {now}" for key, (was, now) in changed.items() if key in explicit]
        if other:
            raise UserError(f"{data}: was prepared with other settings ({'; '.join(other)}); prepare it again, or leave out these --set")
        return prepared, replace(config, data=stored)
    from animalclf.prepare import sources
    from animalclf.prepare.job import prepare

    name = f"{sources.inputs_hash(sources.find(data, config.data), config.data)[:12]}-{FORMAT}"
    return prepare(data, storage.join(where, name), config.data, workers=workers), config


def start(config: Config, prepared: Prepared, run: Run, workers: Workers, cpu: bool, local: bool, report: Report) -> TrainingResult:
    """Say the plan, record it in the run folder, and train in this process (`local`) or on Ray. Returns the content of result.json."""
    counted = {split: len(prepared.rows(split)) for split in ("train", "val", "test")}
    if counted["train"] < workers.most:
        raise UserError(f"{counted['train']} training pictures for {workers.most} workers; every worker needs at least one")
    what = f"{config.name}: {counted['train']:,} training and {counted['val']:,} validation pictures, {len(prepared.classes)} classes"
    if local:
        place, use_gpu, workers = "in this process", False, Workers(1, 1)
    else:
        from animalclf.cluster import at_most, ensure_ray, gpus

        # Importing PyTorch takes seconds, and so does starting Ray, which mostly waits: both at once.
        threading.Thread(target=importlib.import_module, args=("torch",), daemon=True).start()
        ensure_ray(workers.most)
        use_gpu = not cpu and at_most().get("GPU", 0) > 0
        workers = workers if workers.most else Workers.fixed(max(gpus(), 1) if use_gpu else 1)
        weights = [config.model.weights] if config.model.weights not in ("none", "imagenet") else []
        found = preflight(workers, use_gpu, [prepared.root, run.root, *weights])
        in_memory, kept = choose_cache(config.train.cache, prepared)
        place = f"on {workers.of('GPU' if use_gpu else 'CPU')} ({found}), {kept}"
    report(Moment("ray ready"))
    record(config, prepared, run, workers=str(workers), gpu=use_gpu)
    done = len(run.metrics())
    console.print(
        f"{what}, {f'epochs {done + 1} to {config.train.epochs}' if done else f'{config.train.epochs} epochs'} {place}; run folder {run.root}",
        soft_wrap=True,
    )
    if local:
        return train_here(config, prepared, run, report)
    from animalclf.data.ray_loader import cache

    return train_on_ray(config, prepared, run, workers, use_gpu, report, cache(prepared, in_memory, input_claim(workers, use_gpu)))


def record(config: Config, prepared: Prepared, run: Run, **facts: Any) -> None:
    """Make the folder a run of `config` on `prepared`, with `facts` in its environment. Raises UserError for a run on other pictures."""
    if not run.exists():
        run.write_environment(prepared=prepared.root, data=prepared.info["source"], data_fingerprint=prepared.fingerprint, **facts)
        run.write_config(config)  # last: it makes the folder a run
    elif run.environment()["data_fingerprint"] != prepared.fingerprint:
        was = run.environment()
        raise UserError(
            f"{run.root}: was trained on other pictures ({was['prepared']}, fingerprint {was['data_fingerprint'][:12]}; now {prepared.root}, "
            f"{prepared.fingerprint[:12]}); resume with the same pictures, or start a new run"
        )
    elif _changed(run.config(), config):  # going on (`longer`): until the epochs asked for are done it is a training that did not end
        storage.remove(run.url("result.json"))
        run.write_config(config)


def train_here(config: Config, prepared: Prepared, run: Run, report: Report) -> TrainingResult:
    """`--local`: the same training in this process, without Ray, so that breakpoints work."""
    from animalclf.data.loader import MemoryFeed, load_pictures
    from animalclf.training.distributed import RankContext, set_up_cpu
    from animalclf.training.train import train

    set_up_cpu(config.train.threads, 1)
    pictures = load_pictures(prepared)
    return train(config, prepared, run, lambda schedule, passes: MemoryFeed(schedule, pictures), RankContext(), report=report)


def train_on_ray(
    config: Config,
    prepared: Prepared,
    run: Run,
    workers: Workers,
    use_gpu: bool,
    report: Report,
    store: Cache | None = None,
    switch: Switch | None = None,
) -> TrainingResult:
    """Train on `workers` Ray Train workers; dead workers are replaced up to `train.max_failures` times, each costing the running epoch.
    `store`: where the pictures wait, possibly for several trainings; default: in the object store, for this one.

    Raises UserError for what the user can mend, stop.Stopped where `switch` ended the training, and Ray's TrainingFailedError otherwise. Ctrl-C
    stops the workers; `--resume` continues.
    """
    import ray
    import ray.train
    import ray.train.torch

    from animalclf.data.ray_loader import cache
    from animalclf.raycompat.train_controller import trainer_class
    from animalclf.training.stop import EndRun, Stopped, Switch
    from animalclf.training.worker import Task, worker

    mailbox, switch = open_mailbox(), switch or Switch()
    task = Task(config, prepared.root, run.root, store or cache(prepared, claim=input_claim(workers, use_gpu)), mailbox)
    trainer = (trainer_class() or ray.train.torch.TorchTrainer)(
        worker,
        train_loop_config={"task": task},
        scaling_config=scaling(workers, use_gpu),
        run_config=ray.train.RunConfig(
            name=f"animalclf-{uuid.uuid4().hex[:12]}",
            storage_path=tempfile.gettempdir(),  # Ray keeps nothing of ours: the run folder is the checkpoint store
            # A cluster's processes start in its own environment: ours has it where cluster.yaml made the cluster, or `ensure_ray`.
            worker_runtime_env={} if os.environ.items() >= ONE_ARENA.items() else {"env_vars": ONE_ARENA},
            failure_config=ray.train.FailureConfig(max_failures=config.train.max_failures, controller_failure_limit=ATTEMPTS_TO_PLACE),
            callbacks=[EndRun(mailbox)],
        ),
    )
    outcome: queue.Queue[Any] = queue.Queue()

    def fit() -> None:
        try:
            outcome.put(trainer.fit().return_value or Stopped())
        except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
            outcome.put(Stopped() if switch.requested else error)
        finally:
            switch.end()

    # In a thread of its own, so that Ctrl-C reaches this one and not Ray's handler.
    switch.begin(mailbox)
    threading.Thread(target=fit, daemon=True).start()
    renewed = heard = time.monotonic()
    while True:
        if time.monotonic() - renewed > STALE_SECONDS / 4:
            renewed = time.monotonic()
            run.lock()
        try:
            result = outcome.get(timeout=1.0)
        except queue.Empty:
            result = None
        for event in ray.get(mailbox.take.remote()):
            report(event)
            heard = time.monotonic()
        if time.monotonic() - heard > SILENCE:
            heard = time.monotonic()
            asked = workers.of("GPU" if use_gpu else "CPU")
            console.print(f"no sign of the workers for a minute ({asked} asked for; the cluster has {what_there_is()} now)", soft_wrap=True)
        if result is None:
            continue
        if isinstance(result, BaseException):
            raise result
        return result
